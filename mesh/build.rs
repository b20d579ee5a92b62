//! Generates the wire types that mesh itself speaks: tokens, events, operator services.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut compiler = protox::Compiler::new(["../proto"])?;
    compiler.include_imports(true).include_source_info(true);
    compiler.open_files([
        "ordermesh/auth/v1/tokens.proto",
        "ordermesh/events/v1/log.proto",
        "ordermesh/operator/v1/audit.proto",
        "ordermesh/operator/v1/dead_letters.proto",
        "ordermesh/operator/v1/outbox.proto",
        "ordermesh/operator/v1/reason.proto",
        "ordermesh/operator/v1/sagas.proto",
    ])?;
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    // Encoded by the compiler: a decoded set has no room for options, and the rules are options.
    std::fs::write(out.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;
    tonic_prost_build::configure()
        .build_transport(false)
        .include_file("modules.rs")
        .compile_fds(compiler.file_descriptor_set())?;
    for folder in ["auth", "events", "operator"] {
        println!("cargo::rerun-if-changed=../proto/ordermesh/{folder}");
    }
    Ok(())
}
