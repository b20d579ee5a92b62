//! `cargo xtask tools`: the programs that are not Rust, how each is obtained, where each is found.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::{clock, os, postgres, say};

xflags::xflags! {
    /// Installs what `test` and `up --with` need beyond Rust, with the ordinary clients (apt, npm, go).
    ///
    /// Without names: everything that `cargo xtask test` uses. What is fetched is kept in your cache folder
    /// (set ORDERMESH_TOOLS to choose another), so that it outlives clones and clean builds. Nothing is
    /// installed that is there already at the right version. Components from apt need root.
    ///
    ///   cargo xtask tools --list       what there is, where it is found
    ///   cargo xtask tools              what the tests need
    ///   cargo xtask tools jaeger       one by name
    cmd tools {
        /// Names from the list.
        repeated names: String
        /// Show every tool, its version, and where it was found.
        optional --list
    }
}

/// One program that is not Rust.
pub(crate) struct Tool {
    pub(crate) name: &'static str,
    /// Pinned; empty where the system's own version serves.
    pub(crate) version: &'static str,
    /// The client that fetches it.
    client: &'static str,
    /// Run by `sh -eu` in an empty folder that becomes the tool's home; its programs end up in `bin`.
    recipe: &'static str,
    program: &'static str,
    /// What makes the program say its version.
    check: &'static [&'static str],
    /// Whether `cargo xtask test` uses it.
    pub(crate) tested: bool,
    about: &'static str,
}

pub(crate) const TABLE: &[Tool] = &[
    Tool {
        name: "postgres",
        version: "",
        client: "apt-get",
        recipe: "apt-get -qq install -y --no-install-recommends postgresql || \
                 { apt-get -qq update && apt-get -qq install -y --no-install-recommends postgresql; }",
        program: "initdb",
        check: &["--version"],
        tested: true,
        about: "PostgreSQL: the tests of the stores; up --with postgres",
    },
    Tool {
        name: "buf",
        version: "1.75.0",
        client: "npm",
        recipe: "npm install --silent --no-fund --no-audit --prefix . @bufbuild/buf@1.75.0; \
                 mkdir bin; ln -s ../node_modules/.bin/buf bin/buf",
        program: "buf",
        check: &["--version"],
        tested: true,
        about: "lint and format of the contract",
    },
    Tool {
        name: "api-linter",
        version: "2.3.0",
        client: "go",
        recipe: "go mod init local/api-linter; go mod edit -require github.com/googleapis/api-linter/v2@v2.3.0; \
                 go build -mod=mod -o bin/api-linter github.com/googleapis/api-linter/v2/cmd/api-linter",
        program: "api-linter",
        check: &["--version"],
        tested: true,
        about: "Google's API rules on the contract",
    },
    Tool {
        name: "grpcurl",
        version: "1.9.3",
        client: "go",
        recipe: "GOBIN=$PWD/bin go install github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.3",
        program: "grpcurl",
        check: &["--version"],
        tested: true,
        about: "gRPC calls by hand",
    },
    Tool {
        name: "grpc-interop",
        version: "1.75.1",
        client: "go",
        recipe: "GOBIN=$PWD/bin go install google.golang.org/grpc/interop/client@v1.75.1; \
                 mv bin/client bin/grpc-interop-client; \
                 GOBIN=$PWD/bin go install google.golang.org/grpc/interop/server@v1.75.1; \
                 mv bin/server bin/grpc-interop-server",
        program: "grpc-interop-client",
        check: &["--help"],
        tested: true,
        about: "gRPC's interoperability tests, by grpc-go",
    },
    Tool {
        name: "h2spec",
        version: "2.2.1",
        client: "go",
        recipe: "go mod init local/h2spec; \
                 go get -tool github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible; \
                 go build -trimpath -o bin/h2spec github.com/summerwind/h2spec/cmd/h2spec",
        program: "h2spec",
        check: &["--version"],
        tested: true,
        about: "what RFC 9113 demands of a server",
    },
    Tool {
        name: "valgrind",
        version: "",
        client: "apt-get",
        recipe: "apt-get -qq install -y --no-install-recommends valgrind || \
                 { apt-get -qq update && apt-get -qq install -y --no-install-recommends valgrind; }",
        program: "valgrind",
        check: &["--version"],
        tested: true,
        about: "instructions of a call; bench count",
    },
    Tool {
        name: "redis",
        version: "",
        client: "apt-get",
        recipe: "apt-get -qq install -y --no-install-recommends redis-server || \
                 { apt-get -qq update && apt-get -qq install -y --no-install-recommends redis-server; }",
        program: "redis-server",
        check: &["--version"],
        tested: false,
        about: "counters of the rate limit",
    },
    Tool {
        name: "prometheus",
        version: "",
        client: "apt-get",
        recipe: "apt-get -qq install -y --no-install-recommends prometheus || \
                 { apt-get -qq update && apt-get -qq install -y --no-install-recommends prometheus; }",
        program: "prometheus",
        check: &["--version"],
        tested: false,
        about: "metrics, with promtool",
    },
    Tool {
        name: "consul",
        version: "1.8.7",
        client: "apt-get",
        recipe: CONSUL,
        program: "consul",
        check: &["version"],
        tested: true,
        about: "service registry (side-loaded from Debian bullseye); up --with consul",
    },
    Tool {
        name: "consul-1.20",
        version: "1.20.1",
        client: "go",
        // Its licence (BUSL) lets it be run, and not be passed on.
        recipe: "go mod init local/consul; go get -tool github.com/hashicorp/consul@v1.20.1; \
                 go build -trimpath -ldflags '-s -w' -o bin/consul github.com/hashicorp/consul",
        program: "consul",
        check: &["version"],
        tested: false,
        about: "a later Consul, for the same tests (built from source: 4 min)",
    },
    Tool {
        name: "jaeger",
        version: "2.13.0",
        client: "go",
        recipe: JAEGER,
        program: "jaeger",
        check: &["version"],
        tested: false,
        about: "traces (built from source: 6 min); up --with jaeger",
    },
];

/// A package of another suite of Debian, unpacked beside the system, from the mirror that apt uses already.
const CONSUL: &str = r#"
mirror=$(apt-get indextargets --format '$(REPO_URI)' | head -n 1)
mkdir -p lists/partial cache/archives/partial; : >status
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror bullseye main" >sources.list
set -- -o Dir::Etc::sourcelist=$PWD/sources.list -o Dir::Etc::sourceparts=/dev/null -o Dir::State::lists=$PWD/lists \
  -o Dir::Cache=$PWD/cache -o Dir::State::status=$PWD/status -o APT::Sandbox::User=root -o Acquire::Check-Valid-Until=false
apt-get "$@" -qq update; apt-get "$@" -qq download consul
for package in *.deb; do dpkg -x "$package" unpacked; done
mkdir bin; ln -s ../unpacked/usr/bin/consul bin/consul; rm -rf lists cache ./*.deb
"#;

/// Version 2.13.0 has the module tag v1.76.0. Its own go.sum knows what a checksum database may lack.
const JAEGER: &str = r#"
go mod init local/jaeger; go mod edit -replace github.com/Shopify/sarama=github.com/Shopify/sarama@v1.33.0
sum=$(go mod download -json github.com/jaegertracing/jaeger@v1.76.0 | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')/go.sum
cp "$sum" go.sum; chmod u+w go.sum
go get -tool github.com/jaegertracing/jaeger/cmd/jaeger@v1.76.0
go build -trimpath -ldflags '-s -w' -o bin/jaeger github.com/jaegertracing/jaeger/cmd/jaeger
"#;

pub(crate) fn run(flags: &Tools) -> Result<ExitCode> {
    if flags.list {
        print!("{}", list());
        return Ok(ExitCode::SUCCESS);
    }
    let mut wanted = Vec::new();
    for name in &flags.names {
        wanted.push(named(name)?);
    }
    if wanted.is_empty() {
        wanted.extend(TABLE.iter().filter(|tool| tool.tested));
    }
    let mut missing = 0_usize;
    for tool in wanted {
        match install(tool) {
            Ok(program) => println!("{} is at {}", tool.name, program.display()),
            Err(error) => {
                missing += 1;
                say::note(&format!("{}: {error:#}", tool.name));
            }
        }
    }
    Ok(if missing == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

pub(crate) fn named(name: &str) -> Result<&'static Tool> {
    let known: Vec<&str> = TABLE.iter().map(|tool| tool.name).collect();
    match TABLE.iter().find(|tool| tool.name == name) {
        Some(tool) => Ok(tool),
        None => bail!("there is no tool `{name}`: there are {}", known.join(", ")),
    }
}

/// Where a tool is: fetched before, or on PATH at the right version.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let tool = TABLE.iter().find(|tool| tool.name == name)?;
    if tool.name == "postgres" {
        return postgres::folder().map(|folder| folder.join(tool.program));
    }
    let fetched = home(tool).join("bin").join(tool.program);
    if fetched.exists() {
        return Some(fetched);
    }
    let system = os::program(tool.program, &[])?;
    right(tool, &system).then_some(system)
}

/// How to get a tool by hand.
pub(crate) fn hint(name: &str) -> String {
    match TABLE.iter().find(|tool| tool.name == name) {
        Some(tool) if tool.client == "apt-get" && tool.version.is_empty() => {
            let package = if tool.name == "postgres" { "postgresql" } else { tool.program };
            format!("`sudo apt-get install --no-install-recommends {package}`")
        }
        Some(tool) => format!("`cargo xtask tools {name}` (it needs `{}`)", tool.client),
        None => format!("install {name}"),
    }
}

/// Fetches a tool unless it is there; answers where its program is.
pub(crate) fn install(tool: &Tool) -> Result<PathBuf> {
    if let Some(program) = find(tool.name) {
        return Ok(program);
    }
    ensure!(
        os::program(tool.client, &[]).is_some(),
        "`{}` is not installed, and {} comes from it: {}",
        tool.client,
        tool.name,
        hint(tool.name)
    );
    ensure!(
        tool.client != "apt-get" || !tool.version.is_empty() || os::root(),
        "it comes from apt, which needs root: {}",
        hint(tool.name)
    );
    let home = home(tool);
    let draft = home.with_extension(format!("{}.draft", std::process::id()));
    fs::create_dir_all(&draft).with_context(|| format!("cannot make {}", draft.display()))?;
    say::stage(&format!("fetching {} {} with {}", tool.name, tool.version, tool.client));
    let begun = clock::now();
    let done = fetch(tool, &draft).and_then(|()| {
        if home.exists() {
            fs::remove_dir_all(&home)?;
        }
        Ok(fs::rename(&draft, &home)?)
    });
    if done.is_err() && draft.exists() {
        fs::remove_dir_all(&draft)?;
    }
    done?;
    say::note(&format!("    {} is there after {}", tool.name, clock::spoken(begun.elapsed())));
    find(tool.name)
        .with_context(|| format!("{} was fetched, but `{}` is not in it", tool.name, tool.program))
}

fn fetch(tool: &Tool, folder: &Path) -> Result<()> {
    let log = folder.join("recipe.log");
    let file = fs::File::create(&log)?;
    let status = Command::new("sh")
        .args(["-euc", tool.recipe])
        .current_dir(folder)
        // Neither another toolchain nor a C compiler: what is built here is the same everywhere.
        .envs([
            ("GOTOOLCHAIN", "local"),
            ("CGO_ENABLED", "0"),
            ("DEBIAN_FRONTEND", "noninteractive"),
        ])
        .envs([("GOFLAGS", "-modcacherw"), ("GOWORK", "off")])
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .status()
        .context("cannot run sh")?;
    if !status.success() {
        let words = fs::read_to_string(&log).unwrap_or_default();
        let lines: Vec<&str> = words.lines().collect();
        let last = lines
            .iter()
            .skip(lines.len().saturating_sub(12))
            .copied()
            .collect::<Vec<_>>()
            .join("\n    ");
        bail!("its recipe failed ({status}):\n    {last}\n  The recipe: {}", tool.recipe.trim());
    }
    Ok(())
}

fn right(tool: &Tool, program: &Path) -> bool {
    if tool.version.is_empty() {
        return true;
    }
    let said = Command::new(program).args(tool.check).stdin(Stdio::null()).output();
    said.is_ok_and(|said| {
        let text = [said.stdout, said.stderr].concat();
        String::from_utf8_lossy(&text).contains(tool.version)
    })
}

/// The folder that this version of a tool lives in.
fn home(tool: &Tool) -> PathBuf {
    cache().join(format!("{}-{}", tool.name, tool.version).trim_end_matches('-'))
}

/// The folder of everything that was fetched.
pub(crate) fn cache() -> PathBuf {
    let var = |name: &str| std::env::var_os(name).filter(|it| !it.is_empty()).map(PathBuf::from);
    if let Some(chosen) = var("ORDERMESH_TOOLS") {
        return chosen;
    }
    let user = var("XDG_CACHE_HOME").or_else(|| {
        let home = var("HOME")?;
        Some(if cfg!(target_os = "macos") {
            home.join("Library/Caches")
        } else {
            home.join(".cache")
        })
    });
    user.unwrap_or_else(std::env::temp_dir).join("ordermesh")
}

/// PATH with everything that was found in front.
pub(crate) fn path() -> std::ffi::OsString {
    let found = TABLE
        .iter()
        .filter_map(|tool| find(tool.name))
        .filter_map(|it| it.parent().map(Path::to_owned));
    let old = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths(found.chain(std::env::split_paths(&old))).unwrap_or(old)
}

fn list() -> String {
    let head = ["tool", "version", "by", "tests", "found", "what"].map(str::to_owned).to_vec();
    let rows = TABLE.iter().map(|tool| {
        let found = find(tool.name).map_or_else(|| "-".to_owned(), |it| it.display().to_string());
        let tested = if tool.tested { "yes" } else { "" };
        let version = if tool.version.is_empty() { "any" } else { tool.version };
        [tool.name, version, tool.client, tested, &found, tool.about].map(str::to_owned).to_vec()
    });
    say::table(&std::iter::once(head).chain(rows).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_recipe_names_the_version_that_it_pins() {
        for tool in TABLE.iter().filter(|tool| !tool.version.is_empty() && tool.client != "apt-get")
        {
            let pinned = tool.recipe.contains(tool.version) || tool.name == "jaeger";
            assert!(pinned, "{}: {}", tool.name, tool.recipe);
        }
    }

    #[test]
    fn an_unknown_tool_is_answered_with_the_known_ones() {
        let error = named("oracle").map(|tool| tool.name).unwrap_err().to_string();
        assert!(error.contains("there are postgres, buf"), "{error}");
    }
}
