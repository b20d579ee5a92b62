//! The secrets to begin with: an admin, and a client for each service. Read at every start;
//! what is there already stays.

use std::{fs, io::ErrorKind, path::Path};

use anyhow::Context as _;
use aws_lc_rs::digest;
use mesh::{clock, config::setting};
use time::OffsetDateTime;

use crate::{
    domain::{
        Profile, User,
        values::{DisplayName, Email, Password, Role, Roles},
    },
    passwords::{Passwords, Salt},
    store::{Store, WriteError},
};

/// Whom the first admin signs in as.
pub const ADMIN: &str = "admin@ordermesh.example";

/// The shortest secret of a service: 256 bits in base64 have 43 characters.
const SECRET_MIN: usize = 32;

/// Sets up what `folder` names.
///
/// # Errors
/// A file cannot be read, a secret is too short, or the database failed.
pub async fn run(
    store: &Store,
    passwords: &Passwords,
    folder: &Path,
    at: OffsetDateTime,
) -> anyhow::Result<()> {
    admin(store, passwords, &folder.join("admin-password"), at).await?;
    let clients = folder.join("clients");
    let entries = match fs::read_dir(&clients) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => {
            let unreadable = || format!("cannot read {}", clients.display());
            return setting(Err(error).with_context(unreadable));
        }
    };
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot read {}", clients.display()))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // What mounted secrets and editors leave beside the files.
        if name.starts_with('.') {
            continue;
        }
        client(store, name, &entry.path(), at).await?;
    }
    Ok(())
}

async fn admin(
    store: &Store,
    passwords: &Passwords,
    file: &Path,
    at: OffsetDateTime,
) -> anyhow::Result<()> {
    let Some(secret) = read(file)? else { return Ok(()) };
    let email = Email::parse(ADMIN)?;
    if store.by_email(&email).await?.is_some() {
        return Ok(());
    }
    let password = Password::parse(&secret);
    let password =
        setting(password.with_context(|| format!("the password in {}", file.display())))?;
    let password = passwords.hash(password, Salt::random()?).await?;
    let profile = Profile { display_name: DisplayName::parse("Admin")?, email, password };
    let (user, happened) = User::open(clock::id(), profile, Roles::of(Role::Admin), at);
    match store.open(user, happened, None, at).await {
        Ok(()) => tracing::info!("{ADMIN} opened"),
        // Another replica starts at the same time.
        Err(WriteError::Taken(_)) => {}
        Err(error) => return Err(error).context("cannot open the account of the admin"),
    }
    Ok(())
}

async fn client(
    store: &Store,
    name: String,
    file: &Path,
    at: OffsetDateTime,
) -> anyhow::Result<()> {
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    if !(1..=63).contains(&name.len()) || !name.bytes().all(plain) {
        return setting(Err(anyhow::anyhow!("{} is not named after a service", file.display())));
    }
    let Some(secret) = read(file)? else { return Ok(()) };
    if secret.len() < SECRET_MIN {
        return setting(Err(anyhow::anyhow!(
            "the secret in {} needs {SECRET_MIN} characters or more",
            file.display()
        )));
    }
    let hash = digest::digest(&digest::SHA256, secret.as_bytes()).as_ref().to_vec();
    if store.set_client_secret(name.clone(), hash, at).await? {
        tracing::info!(client = name, "secret of client {name} set");
    }
    Ok(())
}

/// What a file holds without the white space around it; `None` if there is no such file.
fn read(file: &Path) -> anyhow::Result<Option<String>> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => {
            setting(Err(error).with_context(|| format!("cannot read {}", file.display())))
        }
    }
}

#[cfg(test)]
mod tests {
    use mesh::testing;

    use super::*;

    const SECRET: &str = "0123456789abcdef0123456789abcdef0123456789a";

    fn hash(secret: &str) -> Option<Vec<u8>> {
        Some(digest::digest(&digest::SHA256, secret.as_bytes()).as_ref().to_vec())
    }

    #[tokio::test]
    async fn every_start_finds_one_admin_and_the_secrets_of_today() {
        let db = testing::sqlite(Store::migrations()).await;
        let store = Store::on(db.store.clone());
        let passwords = Passwords::new().await.expect("ready");
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| {
            fs::write(folder.path().join(name), text).expect("written");
        };
        let start = async || run(&store, &passwords, folder.path(), clock::now()).await;
        start().await.expect("an empty folder sets nothing up");
        write("admin-password", "correct horse battery\n");
        fs::create_dir(folder.path().join("clients")).expect("a folder");
        write("clients/orders", &format!("{SECRET}\n"));
        write("clients/.orders.swp", "x");
        start().await.expect("set up");
        let email = Email::parse(ADMIN).expect("an address");
        let admin = store.by_email(&email).await.expect("read").expect("there");
        assert_eq!(admin.user.roles.names(), ["admin"]);
        assert_eq!(store.client_secret("orders").await.expect("read"), hash(SECRET));
        let new = SECRET.replace('0', "z");
        write("clients/orders", &new);
        write("admin-password", "another horse battery");
        start().await.expect("set up again");
        assert_eq!(store.by_email(&email).await.expect("read"), Some(admin), "stays as it was");
        assert_eq!(store.client_secret("orders").await.expect("read"), hash(&new));
    }

    #[tokio::test]
    async fn a_secret_that_can_be_guessed_ends_the_start() {
        let db = testing::sqlite(Store::migrations()).await;
        let store = Store::on(db.store.clone());
        let passwords = Passwords::new().await.expect("ready");
        for (file, text) in
            [("admin-password", "short"), ("clients/orders", "short"), ("clients/Orders!", SECRET)]
        {
            let folder = tempfile::tempdir().expect("a folder");
            fs::create_dir(folder.path().join("clients")).expect("a folder");
            fs::write(folder.path().join(file), text).expect("written");
            let refused = run(&store, &passwords, folder.path(), clock::now()).await;
            let error = format!("{:#}", refused.expect_err(file));
            assert!(error.contains(file) && !error.contains(text), "{error}");
        }
    }
}
