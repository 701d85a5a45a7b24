//! What the outputs of `clipper container onnx` depend on, as the build that it states.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use clipper_container::BatchModel as _;
use clipper_domain::InputType;
use clipper_onnx::{EngineInfo, OnnxModel};
use clipper_rpc::protocol::Build;
use ring::digest::{Context, SHA256};

/// This program, the engine, the file, and which output of it answers what type.
pub(super) fn of(file: &Path, model: &OnnxModel) -> io::Result<Build> {
    build(file, model.engine(), [model.output_name(), &model.input_type().to_string()])
}

/// Likewise, of a model over tensors: all its outputs answer.
pub(super) fn of_tensors(file: &Path, engine: &EngineInfo) -> io::Result<Build> {
    build(file, engine, ["", InputType::Tensors.long_name()])
}

fn build(file: &Path, engine: &EngineInfo, says: [&str; 2]) -> io::Result<Build> {
    let engine = match engine {
        // Where the library lies changes nothing, and differs between machines.
        EngineInfo::Ort { version, .. } => format!("onnxruntime {version}"),
        EngineInfo::Builtin => "builtin".to_owned(),
    };
    let mut hash = Context::new(&SHA256);
    for text in [&*engine, says[0], says[1]] {
        hash.update(text.as_bytes());
        hash.update(&[0]);
    }
    let mut reader = File::open(file)?;
    let mut piece = vec![0; 64 << 10];
    loop {
        match reader.read(&mut piece)? {
            0 => break,
            read => hash.update(&piece[..read]),
        }
    }
    let mut text = format!("clipper-{}+sha256:", env!("CARGO_PKG_VERSION"));
    for byte in hash.finish().as_ref() {
        // Writing to memory does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    Build::parse(text.as_bytes()).ok_or_else(|| io::Error::other("the build is not one"))
}
