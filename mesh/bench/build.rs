//! Generates `mesh.bench.v1`, here and nowhere else: no process of the shop knows it.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut compiler = protox::Compiler::new(["proto", "../../proto"])?;
    compiler.include_imports(true).open_file("mesh/bench/v1/echo.proto")?;
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    // Encoded by the compiler: a decoded set has no room for options, and the rules are options.
    std::fs::write(out.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;
    tonic_prost_build::configure()
        .build_transport(false)
        .bytes(".")
        .include_file("modules.rs")
        .compile_fds(compiler.file_descriptor_set())?;
    println!("cargo::rerun-if-changed=proto");
    println!("cargo::rerun-if-changed=../../proto/ordermesh/auth");
    Ok(())
}
