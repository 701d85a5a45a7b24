//! Compares the built-in engine with ONNX Runtime on single operators, in the cases that
//! `tests/fixtures/onnx_cases.py` writes. It is what `vetted` stands on.

use std::collections::BTreeMap;
use std::path::Path;

use rten::{ModelOptions, Value};
use rten_onnx::onnx::{ModelProto, TensorProto};
use rten_onnx::protobuf::{DecodeMessage as _, ValueReader};
use rten_tensor::prelude::*;

use super::*;

fn tensor(path: &Path) -> TensorProto {
    TensorProto::decode(ValueReader::from_buf(&std::fs::read(path).unwrap())).unwrap()
}

fn numbers(tensor: &TensorProto) -> Option<Vec<f64>> {
    let raw = tensor.raw_data.as_ref().map(|raw| raw.borrow().clone()).unwrap_or_default();
    Some(match tensor.data_type?.0 {
        1 => raw.as_chunks::<4>().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect(),
        6 => raw.as_chunks::<4>().0.iter().map(|b| f64::from(i32::from_le_bytes(*b))).collect(),
        7 => raw.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b) as f64).collect(),
        9 => raw.iter().map(|b| f64::from(*b)).collect(),
        _ => return None,
    })
}

#[allow(clippy::cast_possible_truncation)]
fn value(tensor: &TensorProto) -> Option<Value> {
    let shape: Vec<usize> = tensor.dims.iter().map(|dim| usize::try_from(*dim).unwrap()).collect();
    let numbers = numbers(tensor)?;
    if tensor.data_type?.0 == 1 {
        return Value::from_shape(&shape, numbers.iter().map(|n| *n as f32).collect::<Vec<_>>())
            .ok();
    }
    Value::from_shape(&shape, numbers.iter().map(|n| *n as i32).collect::<Vec<_>>()).ok()
}

/// `ok`, `refused`, `fails` or what is wrong.
fn outcome(folder: &Path) -> Result<&'static str, String> {
    let bytes = std::fs::read(folder.join("model.onnx")).unwrap();
    let mut model = ModelProto::parse_buf(&bytes).unwrap();
    let output = model.graph.as_ref().unwrap().output[0].name.clone().unwrap();
    let layout = InputLayout {
        name: String::new(),
        element: Element::F32,
        batch: BatchAxis::None,
        row_shape: Vec::new(),
    };
    cut_down(&mut model, &layout, &output);
    if !vetted::refusals(&model).is_empty() {
        return Ok("refused");
    }
    let options = ModelOptions::with_ops(vetted::registry());
    let bytes = model.write_buf().unwrap();
    let Ok(loaded) = guarded(|| options.load(bytes).map_err(EngineError::library)) else {
        return Ok("fails");
    };
    let mut inputs = Vec::new();
    let graph = model.graph.as_ref().unwrap();
    let filled = |name: &Option<String>| graph.initializer.iter().any(|one| one.name == *name);
    let names = graph.input.iter().filter(|input| !filled(&input.name));
    for (index, input) in names.enumerate() {
        let file = folder.join(format!("input_{index}.pb"));
        if !file.exists() {
            return Ok("fails");
        }
        let Some(id) = loaded.find_node(input.name.as_deref().unwrap()) else { continue };
        let Some(value) = value(&tensor(&file)) else { return Ok("fails") };
        inputs.push((id, value.into()));
    }
    let id = loaded.find_node(&output).unwrap();
    let ran = guarded(|| loaded.run_n::<1>(inputs, [id], None).map_err(EngineError::library));
    let Ok([got]) = ran else { return Ok("fails") };
    let expected = tensor(&folder.join("output.pb"));
    let (shape, got) = match &got {
        Value::FloatTensor(t) => (t.shape().to_vec(), t.iter().map(|n| f64::from(*n)).collect()),
        Value::Int32Tensor(t) => {
            (t.shape().to_vec(), t.iter().map(|n| f64::from(*n)).collect::<Vec<f64>>())
        }
        other => return Err(format!("type {:?}", other.dtype())),
    };
    let dims: Vec<usize> = expected.dims.iter().map(|dim| usize::try_from(*dim).unwrap()).collect();
    if shape != dims {
        return Err(format!("shape {shape:?}, expected {dims:?}"));
    }
    let Some(expected) = numbers(&expected) else { return Err("another type".to_owned()) };
    let close = |a: &f64, b: &f64| {
        a.to_bits() == b.to_bits()
            || (a.is_nan() && b.is_nan())
            || (a - b).abs() <= 1e-3 * b.abs() + 1e-5
    };
    if got.iter().zip(&expected).all(|(a, b)| close(a, b)) {
        return Ok("ok");
    }
    Err(format!("{:?} expected {:?}", &got[..got.len().min(6)], &expected[..got.len().min(6)]))
}

#[test]
fn no_operator_that_runs_is_computed_wrongly() {
    let python = std::env::var_os("CLIPPER_TEST_PYTHON")
        .expect("set CLIPPER_TEST_PYTHON, as scripts/test.sh does");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/onnx_cases.py");
    let folder = tempfile::tempdir().unwrap();
    let made = std::process::Command::new(python).arg(script).arg(folder.path()).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut wrong = Vec::new();
    for case in std::fs::read_dir(folder.path()).unwrap() {
        let case = case.unwrap();
        match outcome(&case.path()) {
            Ok(outcome) => *counts.entry(outcome).or_default() += 1,
            Err(why) => wrong.push(format!("{}: {why}", case.file_name().to_string_lossy())),
        }
    }
    wrong.sort();
    println!("{counts:?}");
    assert!(wrong.is_empty(), "{} wrong: {}", wrong.len(), wrong.join("\n"));
    // Cases that all are refused would prove nothing.
    assert!(counts["ok"] > 2_000, "{counts:?}");
}
