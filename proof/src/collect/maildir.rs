//! Mails as they lie in a maildir.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::Context as _;

use crate::world::{Mail, World};

/// The mails of a maildir, those that were read and those that were not.
pub(super) fn read(path: &Path) -> anyhow::Result<Vec<Mail>> {
    let mut mails = Vec::new();
    for folder in ["new", "cur"] {
        let folder = path.join(folder);
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.with_context(|| format!("cannot list {}", folder.display()))?.path();
            let bytes =
                fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            mails.push(mail(&path.display().to_string(), &String::from_utf8_lossy(&bytes)));
        }
    }
    anyhow::ensure!(path.is_dir(), "{} is no folder of mails", path.display());
    mails.sort_by(|a, b| a.file.cmp(&b.file));
    Ok(mails)
}

/// Gives each mail the order that its notification is about.
pub(super) fn name_orders(world: &mut World) {
    let orders: BTreeMap<&str, &str> =
        world.notifications.iter().map(|it| (&*it.message_id, &*it.order_id)).collect();
    for mail in &mut world.mails {
        if let Some(order) = orders.get(mail.message_id.as_str()) {
            (*order).clone_into(&mut mail.order_id);
        }
    }
}

fn mail(file: &str, text: &str) -> Mail {
    let text = text.replace("\r\n", "\n");
    let head = text.split_once("\n\n").map_or(text.as_str(), |(head, _)| head);
    // A header goes on in lines that begin with a space.
    let head = head.replace("\n ", " ").replace("\n\t", " ");
    let header = |name: &str| {
        let found = head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        });
        found.unwrap_or_default()
    };
    Mail {
        file: file.to_owned(),
        message_id: bare(&header("Message-ID")),
        to: header("To"),
        subject: header("Subject"),
        order_id: String::new(),
    }
}

/// A mail's name without its brackets.
fn bare(message_id: &str) -> String {
    message_id.trim_start_matches('<').trim_end_matches('>').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "Message-ID:\r\n <m-1@ordermesh.example>\r\nto: ada@example.org\r\n\
                        Subject: Your order\r\n is on its way\r\n\r\nSubject: not this one\r\n";

    #[test]
    fn a_mail_is_known_by_its_headers_which_may_be_folded() {
        let mail = mail("new/1", TEXT);
        assert_eq!(
            (mail.message_id.as_str(), mail.to.as_str(), mail.subject.as_str()),
            ("m-1@ordermesh.example", "ada@example.org", "Your order is on its way")
        );
    }

    #[test]
    fn mails_are_read_from_new_and_cur_and_not_from_tmp() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["new", "cur", "tmp"] {
            fs::create_dir(folder.path().join(name)).unwrap();
            fs::write(folder.path().join(name).join("1"), TEXT).unwrap();
        }
        assert_eq!(read(folder.path()).unwrap().len(), 2);
        assert!(read(&folder.path().join("none")).is_err());
    }
}
