//! What the built-in engine may compute: operators whose results were compared with those of ONNX
//! Runtime, and the conditions under which they agree.
//!
//! The engine underneath keeps 64-bit integers in 32 bits, flags in integers and doubles in floats.
//! Everything that could show this in a result is refused here, by types that are followed through
//! the graph. What this file does not know is refused too.

use std::collections::{BTreeSet, HashMap, HashSet};

use rten_onnx::onnx::{
    AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto,
};

/// Names the operators once, for the engine's registry and for the refusals.
macro_rules! operators {
    ($($operator:ident),* $(,)?) => {
        /// The operators that may run.
        pub(super) const OPERATORS: &[&str] = &[$(stringify!($operator)),*];

        /// The engine's code for them, and for no others.
        pub(super) fn registry() -> rten::OpRegistry {
            rten::op_registry!($($operator),*)
        }
    };
}

operators!(
    Abs,
    Add,
    And,
    ArgMax,
    ArgMin,
    AveragePool,
    BatchNormalization,
    Cast,
    Ceil,
    Clip,
    Concat,
    ConstantOfShape,
    Conv,
    ConvTranspose,
    Cos,
    Div,
    Elu,
    Equal,
    Erf,
    Exp,
    Expand,
    Flatten,
    Floor,
    GRU,
    Gather,
    GatherElements,
    Gelu,
    Gemm,
    GlobalAveragePool,
    Greater,
    GreaterOrEqual,
    HardSigmoid,
    HardSwish,
    Identity,
    InstanceNormalization,
    LSTM,
    LayerNormalization,
    LeakyRelu,
    Less,
    LessOrEqual,
    Log,
    LogSoftmax,
    MatMul,
    Max,
    MaxPool,
    Mean,
    Min,
    Mul,
    Neg,
    Not,
    Or,
    PRelu,
    Pad,
    Pow,
    Range,
    Reciprocal,
    ReduceL2,
    ReduceMax,
    ReduceMean,
    ReduceMin,
    ReduceProd,
    ReduceSum,
    ReduceSumSquare,
    Relu,
    Reshape,
    Round,
    Shape,
    Sigmoid,
    Sin,
    Size,
    Slice,
    Softmax,
    Softplus,
    Softsign,
    Split,
    Sqrt,
    Squeeze,
    Sub,
    Sum,
    Tan,
    Tanh,
    Tile,
    TopK,
    Transpose,
    Trilu,
    Unsqueeze,
    Where,
    Xor,
);

/// Operators that calculate, so that 64-bit integers could leave the range of 32 bits.
const ARITHMETIC: &[&str] = &[
    "Add",
    "CumSum",
    "Div",
    "MatMul",
    "Mean",
    "Mul",
    "Neg",
    "Pow",
    "Range",
    "ReduceL2",
    "ReduceMean",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
    "Sub",
    "Sum",
];

/// Why the built-in engine must not compute `model`, which has been cut down to one output.
pub(super) fn refusals(model: &ModelProto) -> Vec<String> {
    let Some(graph) = &model.graph else { return Vec::new() };
    let names = missing(graph);
    if !names.is_empty() {
        let plural = if names.len() == 1 { "operator" } else { "operators" };
        let zipmap = if names.iter().any(|name| name.starts_with("ZipMap")) {
            "; ZipMap is left out by an export with zipmap=False (skl2onnx: \
             options={'zipmap': False})"
        } else {
            ""
        };
        return vec![format!("it needs the {plural} {}{zipmap}", names.join(", "))];
    }
    Follower::new(model, graph).refusals()
}

/// The operators that it uses and the engine does not have.
pub(super) fn missing(graph: &GraphProto) -> Vec<String> {
    let unknown: BTreeSet<String> = graph.node.iter().filter_map(unknown_operator).collect();
    unknown.into_iter().collect()
}

fn unknown_operator(node: &NodeProto) -> Option<String> {
    let name = node.op_type.as_deref().unwrap_or_default();
    let domain = node.domain.as_deref().unwrap_or_default();
    if !matches!(domain, "" | "ai.onnx") {
        return Some(format!("{name} ({domain})"));
    }
    let known = name == "Constant" || OPERATORS.contains(&name);
    (!known).then(|| name.to_owned())
}

/// What is known of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ValueKind {
    element: Datum,
    /// Whether it comes from what callers send; else from shapes and constants alone.
    from_input: bool,
    /// The number of dimensions, where it is known.
    rank: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Datum {
    Float,
    Int32,
    Int64,
    Flag,
    /// Of a type that the engine has no counterpart for.
    Other,
}

impl Datum {
    fn of_onnx(number: i32) -> Self {
        match number {
            1 => Self::Float,
            6 => Self::Int32,
            7 => Self::Int64,
            9 => Self::Flag,
            _ => Self::Other,
        }
    }
}

/// Walks the graph in its order and collects what must not run.
struct Follower<'a> {
    graph: &'a GraphProto,
    opset: i64,
    kinds: HashMap<&'a str, ValueKind>,
    refused: Vec<String>,
}

impl<'a> Follower<'a> {
    fn new(model: &'a ModelProto, graph: &'a GraphProto) -> Self {
        let mut opsets = model.opset_import.iter();
        let opset = opsets.find(|one| matches!(one.domain.as_deref(), None | Some("" | "ai.onnx")));
        let opset = opset.and_then(|one| one.version).unwrap_or(1);
        Self { graph, opset, kinds: HashMap::new(), refused: Vec::new() }
    }

    fn refusals(mut self) -> Vec<String> {
        self.check_opset();
        for tensor in &self.graph.initializer {
            self.constant(tensor.name.as_deref().unwrap_or_default(), tensor);
        }
        for input in &self.graph.input {
            if let Some(kind) = declared(input) {
                let name = input.name.as_deref().unwrap_or_default();
                self.kinds.entry(name).or_insert(kind);
            }
        }
        for node in &self.graph.node {
            self.node(node);
        }
        for output in &self.graph.output {
            let declared = declared(output);
            let known = output.name.as_deref().and_then(|name| self.kinds.get(name));
            if declared.map(|kind| kind.element) != known.map(|kind| kind.element) {
                self.refuse("the output's type differs from what the model computes".to_owned());
            }
        }
        self.refused.dedup();
        self.refused
    }

    fn refuse(&mut self, why: String) {
        self.refused.push(why);
    }

    fn check_opset(&mut self) {
        // Older operators broadcast by rules of their own, newer ones have not been compared.
        if !(7..=26).contains(&self.opset) {
            let opset = self.opset;
            self.refuse(format!("its operator set is version {opset}, not one of 7 to 26"));
        }
    }

    fn constant(&mut self, name: &'a str, tensor: &TensorProto) {
        let element = Datum::of_onnx(tensor.data_type.map_or(0, |kind| kind.0));
        if element == Datum::Other {
            let kind = tensor.data_type.map_or_else(|| "no".to_owned(), |kind| kind.to_string());
            self.refuse(format!("the constant '{name}' has elements of type {kind}"));
        }
        if element == Datum::Int64 && !fits_32_bits(tensor) && !self.only_slices(name) {
            self.refuse(format!("the constant '{name}' has integers of more than 32 bits"));
        }
        let rank = Some(tensor.dims.len());
        self.kinds.insert(name, ValueKind { element, from_input: false, rank });
    }

    /// Whether `name` only says where slices begin and end: there the largest numbers stand for the
    /// end, and the engine takes them so.
    fn only_slices(&self, name: &str) -> bool {
        let mut users = self.graph.node.iter().filter(|node| node.input.iter().any(|i| i == name));
        users.all(|node| node.op_type.as_deref() == Some("Slice"))
    }

    fn kind(&self, node: &NodeProto, index: usize) -> Option<ValueKind> {
        self.kinds.get(node.input.get(index)?.as_str()).copied()
    }

    fn node(&mut self, node: &'a NodeProto) {
        let operator = node.op_type.as_deref().unwrap_or_default();
        if operator == "Constant" {
            return self.constant_node(node);
        }
        let inputs: Vec<&str> =
            node.input.iter().map(String::as_str).filter(|name| !name.is_empty()).collect();
        let known: Vec<ValueKind> =
            inputs.iter().filter_map(|name| self.kinds.get(name).copied()).collect();
        if known.len() != inputs.len() {
            self.refuse(format!("{operator} uses a value that nothing gives"));
        }
        let from_input = known.iter().any(|kind| kind.from_input);
        if known.iter().any(|kind| kind.element == Datum::Other) {
            self.refuse(format!("{operator} works on elements of an unsupported type"));
        }
        if ARITHMETIC.contains(&operator)
            && known.iter().any(|kind| kind.element == Datum::Int64 && kind.from_input)
        {
            self.refuse(format!("{operator} calculates with 64-bit integers"));
        }
        if let Some(why) = self.condition(operator, node) {
            self.refuse(format!("{operator} {why}"));
        }
        let first = self.result(operator, node, from_input);
        for (index, output) in node.output.iter().enumerate() {
            let second = index > 0 && operator == "TopK";
            let element = if second { Datum::Int64 } else { first.element };
            self.kinds.insert(output, ValueKind { element, ..first });
        }
    }

    fn constant_node(&mut self, node: &'a NodeProto) {
        let Some(output) = node.output.first() else { return };
        let mut kind = ValueKind { element: Datum::Other, from_input: false, rank: None };
        for attribute in &node.attribute {
            if let Some(tensor) = &attribute.t {
                return self.constant(output, tensor);
            }
            kind.element = match attribute.name.as_deref() {
                Some("value_float" | "value_floats") => Datum::Float,
                Some("value_int" | "value_ints") if ints_fit(attribute) => Datum::Int64,
                _ => Datum::Other,
            };
        }
        if kind.element == Datum::Other {
            self.refuse("a Constant of an unsupported type".to_owned());
        }
        self.kinds.insert(output, kind);
    }

    /// What the operator's first output is.
    fn result(&self, operator: &str, node: &NodeProto, from_input: bool) -> ValueKind {
        let first = self.kind(node, 0);
        let of_first = first.map_or(Datum::Other, |kind| kind.element);
        let (element, from_input) = match operator {
            "Shape" | "Size" => (Datum::Int64, false),
            "Equal" | "Greater" | "GreaterOrEqual" | "Less" | "LessOrEqual" | "Not" | "And"
            | "Or" | "Xor" => (Datum::Flag, from_input),
            "Where" => (self.kind(node, 1).map_or(Datum::Other, |kind| kind.element), from_input),
            "Cast" => (Datum::of_onnx(number(node, "to").unwrap_or(0)), from_input),
            "ConstantOfShape" => (filled_with(node), from_input),
            _ => (of_first, from_input),
        };
        ValueKind { element, from_input, rank: rank(operator, first.and_then(|kind| kind.rank)) }
    }

    /// What of the operator's attributes and types is not computed as the standard says.
    fn condition(&self, operator: &str, node: &NodeProto) -> Option<String> {
        let first = self.kind(node, 0);
        let refuse = |why: &str| Some(why.to_owned());
        match operator {
            "Cast" => cast_condition(first?.element, Datum::of_onnx(number(node, "to")?)),
            "Conv" | "ConvTranspose" | "AveragePool" | "MaxPool" => pool_condition(operator, node),
            "Softmax" | "LogSoftmax" if self.opset < 13 => self.old_softmax(node),
            "TopK" if node.output.len() > 2 => refuse("has too many outputs"),
            "Div" if first.is_some_and(|kind| kind.element != Datum::Float && kind.from_input) => {
                refuse("divides integers")
            }
            "MatMul" if self.kind(node, 1).is_some_and(|right| right.rank == Some(1)) => {
                refuse("by a vector")
            }
            "LSTM" | "GRU" if node.input.get(4).is_some_and(|lengths| !lengths.is_empty()) => {
                refuse("with lengths of sequences")
            }
            _ if number(node, "noop_with_empty_axes").unwrap_or(0) != 0 => {
                refuse("with noop_with_empty_axes")
            }
            "BatchNormalization" | "LayerNormalization" if outputs(node) > 1 => {
                refuse("gives more than one output")
            }
            "ConstantOfShape" if filled_with(node) == Datum::Other => {
                refuse("fills with elements of an unsupported type")
            }
            _ => None,
        }
    }

    /// Before version 13 all dimensions from `axis` on were one, which is the same for the last.
    fn old_softmax(&self, node: &NodeProto) -> Option<String> {
        let axis = number(node, "axis").unwrap_or(1);
        let rank = self.kind(node, 0).and_then(|kind| kind.rank);
        let last = rank.is_some_and(|rank| i32::try_from(rank) == Ok(axis + 1));
        // The engine takes a missing axis for the last one, as newer versions do.
        if axis == -1 || last {
            None
        } else {
            Some(format!("of version {} over axis {axis}", self.opset))
        }
    }
}

/// Ranks where they are evident: enough for the softmax at the end of a classifier.
fn rank(operator: &str, first: Option<usize>) -> Option<usize> {
    match operator {
        "Gemm" | "Flatten" => Some(2),
        "Relu" | "Sigmoid" | "Tanh" | "Elu" | "LeakyRelu" | "Identity" | "Softmax" | "Cast"
        | "BatchNormalization" | "Clip" | "Neg" | "Exp" | "Log" => first,
        _ => None,
    }
}

fn cast_condition(from: Datum, to: Datum) -> Option<String> {
    match (from, to) {
        (_, Datum::Other) => Some("to a type that is not float, int32, int64 or bool".to_owned()),
        (Datum::Float, Datum::Int64) => Some("from float to 64-bit integers".to_owned()),
        (Datum::Int64, Datum::Int32) => Some("from 64-bit to 32-bit integers".to_owned()),
        // Flags are numbers in the engine, of which any but 0 would have to become 1.
        (Datum::Float | Datum::Int32 | Datum::Int64, Datum::Flag) => Some("to bool".to_owned()),
        _ => None,
    }
}

fn pool_condition(operator: &str, node: &NodeProto) -> Option<String> {
    let refuse = |why: &str| Some(why.to_owned());
    let padding = attribute(node, "auto_pad").and_then(|pad| pad.s.as_deref()).unwrap_or("NOTSET");
    if !matches!(padding, "NOTSET" | "VALID") {
        return Some(format!("with auto_pad {padding}"));
    }
    if attribute(node, "kernel_shape").is_none() {
        return refuse("without kernel_shape");
    }
    if number(node, "ceil_mode").unwrap_or(0) != 0 {
        return refuse("with ceil_mode");
    }
    if operator == "MaxPool" && outputs(node) > 1 {
        return refuse("gives the places of the largest");
    }
    if operator == "ConvTranspose" && attribute(node, "output_shape").is_some() {
        return refuse("with output_shape");
    }
    None
}

fn outputs(node: &NodeProto) -> usize {
    node.output.iter().filter(|name| !name.is_empty()).count()
}

fn attribute<'a>(node: &'a NodeProto, name: &str) -> Option<&'a AttributeProto> {
    node.attribute.iter().find(|attribute| attribute.name.as_deref() == Some(name))
}

fn number(node: &NodeProto, name: &str) -> Option<i32> {
    attribute(node, name)?.i.and_then(|number| i32::try_from(number).ok())
}

fn filled_with(node: &NodeProto) -> Datum {
    let tensor = attribute(node, "value").and_then(|value| value.t.as_ref());
    match tensor {
        Some(tensor) if fits_32_bits(tensor) => {
            Datum::of_onnx(tensor.data_type.map_or(0, |kind| kind.0))
        }
        Some(_) => Datum::Other,
        None => Datum::Float,
    }
}

fn ints_fit(attribute: &AttributeProto) -> bool {
    attribute.ints.iter().chain(attribute.i.as_ref()).all(|int| i32::try_from(*int).is_ok())
}

/// Whether all of a constant's 64-bit integers are in the range of 32 bits; true of other types.
fn fits_32_bits(tensor: &TensorProto) -> bool {
    if tensor.data_type.map(|kind| kind.0) != Some(7) {
        return true;
    }
    // Integers in a file beside the model are not looked at.
    if !tensor.external_data.is_empty() {
        return false;
    }
    let fits = |int: i64| i32::try_from(int).is_ok();
    let raw = tensor.raw_data.as_ref().is_none_or(|raw| {
        let raw = raw.borrow();
        raw.as_chunks::<8>().0.iter().all(|bytes| fits(i64::from_le_bytes(*bytes)))
    });
    raw && tensor.int64_data.iter().all(|int| fits(*int))
}

fn declared(value: &ValueInfoProto) -> Option<ValueKind> {
    let tensor = value.r#type.as_ref()?.tensor_type.as_ref()?;
    let rank = tensor.shape.as_ref().map(|shape| shape.dim.len());
    Some(ValueKind { element: Datum::of_onnx(tensor.elem_type?.0), from_input: true, rank })
}

/// The nodes that `output` needs, in their order.
pub(super) fn needed_nodes(graph: &GraphProto, output: &str) -> Vec<bool> {
    let mut wanted: HashSet<&str> = HashSet::from([output]);
    let mut needed = vec![false; graph.node.len()];
    // In a valid file a value is given before it is used.
    for (index, node) in graph.node.iter().enumerate().rev() {
        if node.output.iter().any(|name| wanted.contains(name.as_str())) {
            needed[index] = true;
            wanted.extend(node.input.iter().map(String::as_str).filter(|name| !name.is_empty()));
        }
    }
    needed
}
