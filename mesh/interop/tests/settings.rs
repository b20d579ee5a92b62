//! How a process ends that was told something wrong: as whoever starts it sees it.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::{
    io::Read as _,
    net::TcpListener,
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::Duration,
};

/// None of them serves.
const PATIENCE: Duration = Duration::from_secs(30);

/// How a process with these flags ends, and what it says.
fn ends(flags: &[&str]) -> (Option<i32>, String) {
    let mut process = Command::new(env!("CARGO_BIN_EXE_interop_server"))
        .args(flags)
        .env_clear()
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut stderr = process.stderr.take().unwrap();
    let (said, says) = mpsc::channel();
    std::thread::spawn(move || {
        let mut text = String::new();
        // With what it said so far, where that is not all text.
        let _read = stderr.read_to_string(&mut text).is_ok();
        let _nobody_waits = said.send(text).is_err();
    });
    let Ok(text) = says.recv_timeout(PATIENCE) else {
        return (None, gone(process));
    };
    (process.wait().unwrap().code(), text)
}

fn gone(mut process: Child) -> String {
    process.kill().unwrap();
    process.wait().unwrap();
    "it serves".to_owned()
}

#[test]
fn a_process_whose_settings_are_wrong_ends_with_2_and_names_the_one() {
    let secret = ["--issuer", "users", "--client-secret-file", "/nowhere/secret"];
    for (flags, words) in [
        (&["--registry", "zookeeper://x"][..], "--registry is wrong: `zookeeper://x`"),
        (&["--registry", "dns://?port=70000&suffix=x"], "`70000` is not a number from 1"),
        (&["--registry", "consul://10.0.0.1:8500"], "--allow-plaintext"),
        (&["--tls-cert", "/nowhere/cert", "--tls-key", "/nowhere/key"], "/nowhere/cert"),
        (&["--tls-ca", "/nowhere/ca"], "/nowhere/ca"),
        (&secret, "cannot read the client secret /nowhere/secret"),
        (&["--otlp-endpoint", "ftp://x"], "--otlp-endpoint"),
        (&["--advertise", "a:b:c"], "--advertise is wrong"),
        // What is found while flags are parsed.
        (&["--log", "inof"], "`inof` is no level"),
        (&["--connection-age", "0s"], "longer than nothing"),
        (&["--drain", "soon"], "`soon` is not a duration"),
    ] {
        let at = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
        let (code, text) = ends(&[&at, flags].concat());
        assert_eq!(code, Some(2), "{flags:?}: {text}");
        assert!(text.contains(words), "{flags:?}: {text}");
    }
    let (code, text) = ends(&["--listen", "0.0.0.0:0", "--admin-listen", "127.0.0.1:0"]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("--allow-plaintext"), "{text}");
}

#[test]
fn a_process_that_cannot_begin_for_another_reason_ends_with_1() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let (code, text) = ends(&["--listen", &taken, "--admin-listen", "127.0.0.1:0"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("another process"), "{text}");
}
