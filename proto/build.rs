//! Compiles the `.proto` files beside this one, without `protoc`.

use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
};

fn main() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let mut files = Vec::new();
    for folder in ["google", "ordermesh"] {
        println!("cargo::rerun-if-changed={folder}");
        protos(Path::new(folder), &mut files)?;
    }
    files.sort();

    let mut compiler = protox::Compiler::new(["."])?;
    compiler.include_imports(true).include_source_info(true);
    compiler.open_files(files)?;
    // Reflection serves these and the gateway transcodes from them. Encoded by the compiler,
    // because a decoded `FileDescriptorSet` has no room for options: `google.api.http` is lost.
    fs::write(out.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;

    let mut config = tonic_prost_build::Config::new();
    // Gives every message its full name: the type URL of an event's `data`, with the domain that
    // every protobuf library writes.
    config.enable_type_names().type_name_domain(["."], "type.googleapis.com");
    let mut files = compiler.file_descriptor_set();
    for file in &mut files.file {
        for location in file.source_code_info.iter_mut().flat_map(|info| &mut info.location) {
            location.leading_comments = location.leading_comments.as_deref().map(published);
        }
    }
    tonic_prost_build::configure()
        .build_transport(false)
        .include_file("modules.rs")
        .compile_fds_with_config(files, config)?;
    Ok(())
}

/// A comment without what is between `(--` and `--)`: notes for the linter, not for a reader.
fn published(comment: &str) -> String {
    let mut rest = comment;
    let mut kept = String::new();
    while let Some((before, note)) = rest.split_once("(--") {
        kept.push_str(before);
        rest = note.split_once("--)").map_or("", |(_, after)| after);
    }
    kept.push_str(rest);
    kept.trim_end().to_owned()
}

/// Adds every `.proto` file in `folder` and below.
fn protos(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            protos(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            files.push(path);
        }
    }
    Ok(())
}
