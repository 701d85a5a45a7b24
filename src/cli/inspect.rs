//! `clipper inspect`: what an ONNX file is, and how it can be served.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::output::{answer, answer_json, exit};
use clipper_onnx::{Dim, EngineOptions, Inspection, Value, Way, inspect};

/// `clipper inspect`
#[derive(Debug, Args)]
#[command(after_help = "\
Each engine loads the file and runs it on made-up rows, as its container would. Exits with 1 when no
engine can serve it.

Examples:
  clipper inspect model.onnx
  clipper inspect model.onnx --json")]
pub(super) struct InspectArgs {
    /// The file.
    #[arg(value_name = "FILE.onnx")]
    file: PathBuf,
    /// ONNX Runtime's library [default: looked for].
    #[arg(long, value_name = "FILE")]
    library: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl InspectArgs {
    pub(super) fn run(&self) -> ExitCode {
        let options = EngineOptions { library: self.library.clone(), ..EngineOptions::default() };
        let found = match inspect(&self.file, &options) {
            Ok(found) => found,
            Err(error) => return exit(Err(error)),
        };
        if self.json {
            answer_json(json!(found));
        } else {
            answer(self.text(&found));
        }
        if found.ways.iter().any(|way| way.works) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    fn text(&self, found: &Inspection) -> String {
        let file = self.file.display();
        let opsets = found.opsets.iter().map(|(domain, version)| format!("{domain} {version}"));
        let opsets = opsets.collect::<Vec<_>>().join(", ");
        let mut text = format!("{file}: written by {}, operators of {opsets}\n", found.producer);
        for (side, values) in [("takes", &found.inputs), ("gives", &found.outputs)] {
            for value in values {
                let _ = writeln!(text, "{side:>7}  {}", shown(value));
            }
        }
        let used = found.operators.iter().map(|(name, times)| format!("{name} {times}"));
        let _ = writeln!(text, "   uses  {}", used.collect::<Vec<_>>().join(", "));
        for Way { engine, input_type, how, works, signature } in &found.ways {
            let yes = if *works { "yes" } else { "no" };
            let _ = writeln!(text, "{engine:>7}  {input_type}: {yes}, {how}");
            if let Some(signature) = signature {
                let _ = writeln!(text, "         {signature}");
            }
        }
        if let Some(way) = found.ways.iter().find(|way| way.works) {
            let engine = if way.engine == "builtin" { " --engine builtin" } else { "" };
            let _ = write!(
                text,
                " deploy  clipper deploy {file} --app NAME --slo-ms 100 --default-output null \
                 --input-type {}{engine}",
                way.input_type,
            );
        }
        text
    }
}

fn shown(Value { name, kind, shape }: &Value) -> String {
    let dims = |dims: &Vec<Dim>| {
        let dims: Vec<String> = dims.iter().map(ToString::to_string).collect();
        format!(" [{}]", dims.join(", "))
    };
    format!("{name}: {kind}{}", shape.as_ref().map(dims).unwrap_or_default())
}
