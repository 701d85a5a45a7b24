//! The engine in the binary: rten, for the operators that were compared with ONNX Runtime.

use std::path::{Component, Path};
use std::sync::Arc;

use rten::{Model, ModelOptions, NodeId, RunOptions, ThreadPool, Value};
use rten_onnx::onnx::{
    AttributeProto, Dimension, GraphProto, ModelProto, NodeProto, TensorShapeProto,
};
use rten_tensor::prelude::*;

use crate::engine::Engine;
use crate::engine_error::{EngineError, guarded};
use crate::error::OnnxError;
use crate::file::{BatchAxis, InputLayout, ModelFile};
use crate::tensor::{Element, Elements, Output, Tensor};
use crate::vetted;

/// A model in rten.
pub(crate) struct Builtin {
    model: Model,
    input: NodeId,
    output: NodeId,
    /// What the file says that the output is made of: the engine knows fewer types.
    element: Element,
    pool: Arc<ThreadPool>,
}

impl Builtin {
    pub(crate) fn open(
        file: ModelFile,
        layout: &InputLayout,
        output: &str,
        threads: usize,
    ) -> Result<Self, OnnxError> {
        let refuse = |why: String| OnnxError::Unsupported { output: output.to_owned(), why };
        let ModelFile { path, mut model } = file;
        cut_down(&mut model, layout, output);
        let refusals = vetted::refusals(&model);
        if !refusals.is_empty() {
            return Err(refuse(refusals.join("; ")));
        }
        let element = output_element(&model).ok_or_else(|| refuse("it is no tensor".to_owned()))?;
        let loaded = guarded(|| load(&model, &path));
        let model = loaded.map_err(|error| refuse(error.to_string()))?;
        let ids = (model.find_node(&layout.name), model.find_node(output));
        let (Some(input), Some(output)) = ids else {
            return Err(refuse("it does not depend on the model's input".to_owned()));
        };
        let pool = Arc::new(ThreadPool::with_num_threads(threads));
        Ok(Self { model, input, output, element, pool })
    }
}

/// Leaves what the chosen output needs: other outputs may need operators that are not known.
fn cut_down(model: &mut ModelProto, layout: &InputLayout, output: &str) {
    let Some(graph) = &mut model.graph else { return };
    let needed = vetted::needed_nodes(graph, output);
    let mut needed = needed.into_iter();
    graph.node.retain(|_| needed.next().unwrap_or(false));
    graph.output.retain(|one| one.name.as_deref() == Some(output));
    // Exporters write shapes of intermediate values that contradict each other.
    graph.value_info.clear();
    for one in &mut graph.output {
        if let Some(tensor) = one.r#type.as_mut().and_then(|kind| kind.tensor_type.as_mut()) {
            tensor.shape = None;
        }
    }
    set_input_shape(graph, layout);
    drop_dropout(graph);
    rewrite_arg_max(graph);
}

fn set_input_shape(graph: &mut GraphProto, layout: &InputLayout) {
    let fixed =
        |length: usize| Dimension { dim_value: i64::try_from(length).ok(), ..Dimension::default() };
    let batch = match layout.batch {
        BatchAxis::None => None,
        BatchAxis::Fixed(rows) => Some(fixed(rows)),
        BatchAxis::Open => {
            Some(Dimension { dim_param: Some("batch".to_owned()), ..Dimension::default() })
        }
    };
    let dim = batch.into_iter().chain(layout.row_shape.iter().map(|length| fixed(*length)));
    let shape = TensorShapeProto { dim: dim.collect() };
    let mut inputs = graph.input.iter_mut();
    let input = inputs.find(|input| input.name.as_deref() == Some(&layout.name));
    let kind = input.and_then(|input| input.r#type.as_mut());
    if let Some(tensor) = kind.and_then(|kind| kind.tensor_type.as_mut()) {
        tensor.shape = Some(shape);
    }
}

/// Outside of training a dropout passes its input on.
fn drop_dropout(graph: &mut GraphProto) {
    for node in &mut graph.node {
        let trains = node.input.get(2).is_some_and(|mode| !mode.is_empty());
        let masks = node.output.get(1).is_some_and(|mask| !mask.is_empty());
        if node.op_type.as_deref() == Some("Dropout") && !trains && !masks {
            node.op_type = Some("Identity".to_owned());
            node.attribute.clear();
            node.input.truncate(1);
            node.output.truncate(1);
        }
    }
}

/// The engine's own `ArgMax` takes the last of equal numbers, where the first is right; its `TopK`
/// is exact. Nodes that ask for the last are left as they are, and so refused.
fn rewrite_arg_max(graph: &mut GraphProto) {
    let mut nodes = Vec::with_capacity(graph.node.len());
    for mut node in std::mem::take(&mut graph.node) {
        let of = |name: &str, default: i64| {
            let mut attributes = node.attribute.iter();
            let found = attributes.find(|attribute| attribute.name.as_deref() == Some(name));
            found.and_then(|attribute| attribute.i).unwrap_or(default)
        };
        let largest = match node.op_type.as_deref() {
            Some("ArgMax") => 1,
            Some("ArgMin") => 0,
            _ => {
                nodes.push(node);
                continue;
            }
        };
        let (axis, keeps, last) = (of("axis", 0), of("keepdims", 1), of("select_last_index", 0));
        let Some(output) = node.output.first().cloned().filter(|_| last == 0) else {
            nodes.push(node);
            continue;
        };
        let place = if keeps == 0 { format!("{output}/place") } else { output.clone() };
        node.op_type = Some("TopK".to_owned());
        node.output = vec![format!("{output}/value"), place.clone()];
        node.attribute = vec![int("axis", axis), int("k", 1), int("largest", largest)];
        nodes.push(node);
        if keeps == 0 {
            let along = AttributeProto { ints: vec![axis], ..attribute("axes") };
            nodes.push(NodeProto {
                op_type: Some("Squeeze".to_owned()),
                input: vec![place],
                output: vec![output],
                attribute: vec![along],
                ..NodeProto::default()
            });
        }
    }
    graph.node = nodes;
}

fn attribute(name: &str) -> AttributeProto {
    AttributeProto { name: Some(name.to_owned()), ..AttributeProto::default() }
}

fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto { i: Some(value), ..attribute(name) }
}

fn output_element(model: &ModelProto) -> Option<Element> {
    let output = model.graph.as_ref()?.output.first()?;
    Element::of_onnx(output.r#type.as_ref()?.tensor_type.as_ref()?.elem_type?.0)
}

fn load(model: &ModelProto, path: &Path) -> Result<Model, EngineError> {
    let mut options = ModelOptions::with_ops(vetted::registry());
    options.prepack_weights(true);
    for location in external_files(model) {
        let file = beside(path, &location)?;
        let bytes =
            std::fs::read(&file).map_err(|source| EngineError::Constants { path: file, source })?;
        options.external_data(&location, bytes);
    }
    let bytes = model.write_buf().map_err(EngineError::library)?;
    options.load(bytes).map_err(EngineError::library)
}

/// The files beside the model in which exporters keep large constants.
fn external_files(model: &ModelProto) -> Vec<String> {
    let constants = model.graph.iter().flat_map(|graph| &graph.initializer);
    let entries = constants.flat_map(|constant| &constant.external_data);
    let locations = entries.filter(|entry| entry.key.as_deref() == Some("location"));
    let mut files: Vec<String> = locations.filter_map(|entry| entry.value.clone()).collect();
    files.sort();
    files.dedup();
    files
}

fn beside(model: &Path, location: &str) -> Result<std::path::PathBuf, EngineError> {
    let inside = Path::new(location).components().all(|part| matches!(part, Component::Normal(_)));
    if !inside {
        return Err(EngineError::ConstantsElsewhere(location.to_owned()));
    }
    Ok(model.parent().unwrap_or(Path::new("")).join(location))
}

impl Engine for Builtin {
    fn run(&mut self, input: Tensor) -> Result<Output, EngineError> {
        let input = value(input)?;
        guarded(|| {
            let options = RunOptions::default().with_thread_pool(Some(Arc::clone(&self.pool)));
            let inputs = vec![(self.input, input.into())];
            let outputs = self.model.run_n::<1>(inputs, [self.output], Some(options));
            let [output] = outputs.map_err(EngineError::library)?;
            read(&output, self.element)
        })
    }
}

fn value(tensor: Tensor) -> Result<Value, EngineError> {
    let Tensor { shape, elements } = tensor;
    match elements {
        Elements::F32(values) => Value::from_shape(&shape, values).map_err(EngineError::library),
        Elements::I32(values) => Value::from_shape(&shape, values).map_err(EngineError::library),
        Elements::I64(values) => {
            let narrow: Result<Vec<i32>, _> = values.into_iter().map(i32::try_from).collect();
            let narrow = narrow.map_err(|_| EngineError::WideIntegers)?;
            Value::from_shape(&shape, narrow).map_err(EngineError::library)
        }
        Elements::Bool(values) => {
            let flags: Vec<i32> = values.into_iter().map(i32::from).collect();
            Value::from_shape(&shape, flags).map_err(EngineError::library)
        }
        _ => Err(EngineError::Elements),
    }
}

fn read(output: &Value, element: Element) -> Result<Output, EngineError> {
    let (shape, elements) = match (output, element) {
        (Value::FloatTensor(tensor), Element::F32) => {
            (tensor.shape().to_vec(), Elements::F32(tensor.to_vec()))
        }
        (Value::Int32Tensor(tensor), Element::I32) => {
            (tensor.shape().to_vec(), Elements::I32(tensor.to_vec()))
        }
        (Value::Int32Tensor(tensor), Element::I64) => {
            let wide = tensor.iter().map(|int| i64::from(*int)).collect();
            (tensor.shape().to_vec(), Elements::I64(wide))
        }
        (Value::Int32Tensor(tensor), Element::Bool) => {
            let flags = tensor.iter().map(|int| *int != 0).collect();
            (tensor.shape().to_vec(), Elements::Bool(flags))
        }
        _ => return Err(EngineError::OtherType),
    };
    Ok(Output::Tensor(Tensor { shape, elements }))
}

#[cfg(test)]
#[path = "conformance_tests.rs"]
mod conformance_tests;
