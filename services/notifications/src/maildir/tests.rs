use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::*;

/// A maildir of its own, with its folder.
async fn maildir() -> (Maildir, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let maildir = Maildir { folder: folder.path().join("a").join("mail") };
    maildir.prepare().await.unwrap();
    (maildir, folder)
}

fn names(maildir: &Maildir, folder: &str) -> Vec<String> {
    let entries = std::fs::read_dir(maildir.folder.join(folder)).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_mail_is_put_once_however_often_it_is_tried() {
    let (maildir, _folder) = maildir().await;
    for attempt in 1..=3 {
        maildir.put("a.1", attempt, b"hello".to_vec()).await.unwrap();
        maildir.settle().await.unwrap();
    }
    assert_eq!((names(&maildir, "new"), names(&maildir, "tmp")), (vec!["a.1".to_owned()], vec![]));
    assert_eq!(std::fs::read(maildir.folder.join("new/a.1")).unwrap(), b"hello".to_vec());
}

#[tokio::test]
async fn a_mail_that_was_read_is_not_put_again() {
    for flags in ["", ":2,", ":2,S"] {
        let (maildir, _folder) = maildir().await;
        maildir.put("a.1", 1, b"hello".to_vec()).await.unwrap();
        let read = maildir.folder.join(format!("cur/a.1{flags}"));
        std::fs::rename(maildir.folder.join("new/a.1"), read).unwrap();
        maildir.put("a.1", 2, b"hello".to_vec()).await.unwrap();
        assert_eq!(names(&maildir, "new"), Vec::<String>::new(), "{flags}");
        // Another mail, whose name begins alike, is another mail.
        maildir.put("a", 2, b"hello".to_vec()).await.unwrap();
        assert_eq!(names(&maildir, "new"), ["a"], "{flags}");
    }
}

#[tokio::test]
async fn an_attempt_that_is_taken_for_dead_loses_its_file() {
    let (maildir, _folder) = maildir().await;
    let left = maildir.folder.join("tmp/a.1.1");
    std::fs::write(&left, b"hel").unwrap();
    std::fs::write(maildir.folder.join("tmp/a.12.1"), b"another").unwrap();
    maildir.put("a.1", 2, b"hello".to_vec()).await.unwrap();
    assert_eq!((left.exists(), names(&maildir, "tmp")), (false, vec!["a.12.1".to_owned()]));
    assert_eq!(std::fs::read(maildir.folder.join("new/a.1")).unwrap(), b"hello".to_vec());
}

#[tokio::test]
async fn a_full_disk_leaves_no_half_of_a_mail() {
    let (maildir, _folder) = maildir().await;
    // A device that is always full, in place of the file.
    symlink("/dev/full", maildir.folder.join("tmp/a.1.1")).unwrap();
    let refused = maildir.put("a.1", 1, b"hello".to_vec()).await.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::StorageFull);
    assert_eq!((names(&maildir, "new"), names(&maildir, "tmp")), (vec![], vec![]));
    maildir.put("a.1", 2, b"hello".to_vec()).await.unwrap();
    assert_eq!(names(&maildir, "new"), ["a.1"]);
}

#[tokio::test]
async fn mails_are_for_their_owner_alone() {
    let (maildir, _folder) = maildir().await;
    maildir.put("a.1", 1, b"hello".to_vec()).await.unwrap();
    let mode = |path: &str| {
        let found = std::fs::metadata(maildir.folder.join(path)).unwrap();
        found.permissions().mode() & 0o777
    };
    assert_eq!(
        (mode("new/a.1"), mode("new"), mode("tmp"), mode("cur")),
        (0o600, 0o700, 0o700, 0o700)
    );
}
