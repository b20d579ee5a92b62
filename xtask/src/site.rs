//! Where one run of the mesh lives: the repository, the folder of its state, the shift of its ports.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// Two sites with different folders and shifts run beside each other and never meet.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    /// The root of the repository.
    pub(crate) root: PathBuf,
    /// Databases, secrets, logs and `run.json`.
    pub(crate) state: PathBuf,
    /// Added to every port of the table.
    pub(crate) shift: u16,
}

/// The highest shift at which every port and three replicas of each still fit.
pub(crate) const SHIFT_MAX: u16 = 14_500;

impl Site {
    /// The site that the environment names: `ORDERMESH_STATE` and `ORDERMESH_PORT_SHIFT`, else
    /// `target/ordermesh` and 0.
    pub(crate) fn from_env() -> Result<Self> {
        let root = root()?;
        let state = match env::var_os("ORDERMESH_STATE").filter(|it| !it.is_empty()) {
            Some(state) => root.join(state),
            None => target(&root).join("ordermesh"),
        };
        let shift = match env::var("ORDERMESH_PORT_SHIFT") {
            Ok(text) if !text.is_empty() => {
                text.parse().context("ORDERMESH_PORT_SHIFT is not a number of ports: try 1000")?
            }
            _ => 0,
        };
        ensure!(
            shift <= SHIFT_MAX,
            "ORDERMESH_PORT_SHIFT is {shift}: it may be {SHIFT_MAX} at most"
        );
        Ok(Self { root, state, shift })
    }

    /// The maildir that the customers' mails are delivered to.
    pub(crate) fn mail(&self) -> PathBuf {
        self.state.join("mail")
    }

    pub(crate) fn secrets(&self) -> PathBuf {
        self.state.join("secrets")
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.state.join("logs")
    }

    pub(crate) fn log(&self, process: &str) -> PathBuf {
        self.logs().join(format!("{process}.log"))
    }

    /// Requests to the supervisor: one small file each.
    pub(crate) fn control(&self) -> PathBuf {
        self.state.join("control")
    }

    pub(crate) fn run_file(&self) -> PathBuf {
        self.state.join("run.json")
    }

    /// `host:port` of a port of the table on this site.
    pub(crate) fn address(&self, port: u16) -> String {
        format!("127.0.0.1:{}", port.saturating_add(self.shift))
    }

    /// Where the gateway answers.
    pub(crate) fn gateway(&self) -> String {
        format!("http://{}", self.address(crate::processes::GATEWAY_PORT))
    }

    /// `path` as a reader in the repository's root would type it.
    pub(crate) fn shown(&self, path: &Path) -> String {
        path.strip_prefix(&self.root).unwrap_or(path).display().to_string()
    }
}

/// The root of the repository that this program was started for.
pub(crate) fn root() -> Result<PathBuf> {
    // cargo says it when it runs us; the copy that supervises a detached mesh was told by that one.
    let here =
        env::var("CARGO_MANIFEST_DIR").unwrap_or_else(|_| env!("CARGO_MANIFEST_DIR").to_owned());
    let root = Path::new(&here).parent().context("the folder of xtask has no parent")?;
    ensure!(
        root.join("Cargo.toml").is_file(),
        "{} is not the repository any more: run `cargo xtask` inside a clone",
        root.display()
    );
    Ok(root.to_owned())
}

/// Where cargo builds.
pub(crate) fn target(root: &Path) -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR").filter(|it| !it.is_empty()) {
        Some(folder) => root.join(folder),
        None => root.join("target"),
    }
}
