fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=../../tracelake");
    let protos = protox::compile(["tracelake/v1/ingest.proto", "tracelake/v1/metrics.proto"], ["../.."])?;
    tonic_prost_build::configure().build_server(false).compile_fds(protos)?;
    Ok(())
}
