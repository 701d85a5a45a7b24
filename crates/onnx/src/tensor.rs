//! What goes into an engine and comes out of it: numbers, flags or texts with a shape.

use half::f16;

/// The element types of ONNX that a model's input or output may have here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    /// `tensor(bool)`
    Bool,
    /// `tensor(int8)`
    I8,
    /// `tensor(int16)`
    I16,
    /// `tensor(int32)`
    I32,
    /// `tensor(int64)`
    I64,
    /// `tensor(uint8)`
    U8,
    /// `tensor(uint16)`
    U16,
    /// `tensor(uint32)`
    U32,
    /// `tensor(uint64)`
    U64,
    /// `tensor(float16)`
    F16,
    /// `tensor(float)`
    F32,
    /// `tensor(double)`
    F64,
    /// `tensor(string)`
    Text,
}

impl Element {
    /// The element type of this number in ONNX's `TensorProto.DataType`; none of those that have no
    /// counterpart here (complex numbers, eight bits and less).
    #[must_use]
    pub fn of_onnx(number: i32) -> Option<Self> {
        Some(match number {
            1 => Self::F32,
            2 => Self::U8,
            3 => Self::I8,
            4 => Self::U16,
            5 => Self::I16,
            6 => Self::I32,
            7 => Self::I64,
            8 => Self::Text,
            9 => Self::Bool,
            10 => Self::F16,
            11 => Self::F64,
            12 => Self::U32,
            13 => Self::U64,
            _ => return None,
        })
    }

    /// `float`, `int64`, ...: the name in ONNX's type strings.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::I8 => "int8",
            Self::I16 => "int16",
            Self::I32 => "int32",
            Self::I64 => "int64",
            Self::U8 => "uint8",
            Self::U16 => "uint16",
            Self::U32 => "uint32",
            Self::U64 => "uint64",
            Self::F16 => "float16",
            Self::F32 => "float",
            Self::F64 => "double",
            Self::Text => "string",
        }
    }

    /// Whether it is one of the floating-point types.
    #[must_use]
    pub fn is_float(self) -> bool {
        matches!(self, Self::F16 | Self::F32 | Self::F64)
    }
}

/// The elements of a tensor in row-major order.
#[derive(Debug, Clone, PartialEq)]
pub enum Elements {
    /// `tensor(bool)`
    Bool(Vec<bool>),
    /// `tensor(int8)`
    I8(Vec<i8>),
    /// `tensor(int16)`
    I16(Vec<i16>),
    /// `tensor(int32)`
    I32(Vec<i32>),
    /// `tensor(int64)`
    I64(Vec<i64>),
    /// `tensor(uint8)`
    U8(Vec<u8>),
    /// `tensor(uint16)`
    U16(Vec<u16>),
    /// `tensor(uint32)`
    U32(Vec<u32>),
    /// `tensor(uint64)`
    U64(Vec<u64>),
    /// `tensor(float16)`
    F16(Vec<f16>),
    /// `tensor(float)`
    F32(Vec<f32>),
    /// `tensor(double)`
    F64(Vec<f64>),
    /// `tensor(string)`
    Text(Vec<String>),
}

/// Elements with their shape.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// One number a dimension.
    pub shape: Vec<usize>,
    /// As many as the product of the shape.
    pub elements: Elements,
}

/// What a model gives for a batch.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    Tensor(Tensor),
    /// What `ZipMap` makes of probabilities: for each row a map from label to number.
    Maps(Vec<Vec<(String, f32)>>),
}

/// Every number of `values` as `element`, as numpy's `astype` converts.
macro_rules! converted {
    ($values:expr, $element:expr) => {{
        let values = $values;
        match $element {
            Element::Bool => Elements::Bool(values.map(|value| f64::from(value) != 0.0).collect()),
            Element::I8 => Elements::I8(values.map(|value| value as i8).collect()),
            Element::I16 => Elements::I16(values.map(|value| value as i16).collect()),
            Element::I32 => Elements::I32(values.map(|value| value as i32).collect()),
            Element::I64 => Elements::I64(values.map(|value| value as i64).collect()),
            Element::U8 => Elements::U8(values.map(|value| value as u8).collect()),
            Element::U16 => Elements::U16(values.map(|value| value as u16).collect()),
            Element::U32 => Elements::U32(values.map(|value| value as u32).collect()),
            Element::U64 => Elements::U64(values.map(|value| value as u64).collect()),
            Element::F16 => {
                Elements::F16(values.map(|value| f16::from_f64(f64::from(value))).collect())
            }
            Element::F32 => Elements::F32(values.map(|value| value as f32).collect()),
            Element::F64 => Elements::F64(values.map(|value| f64::from(value)).collect()),
            Element::Text => Elements::Text(values.map(|value| value.to_string()).collect()),
        }
    }};
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_lossless,
    clippy::unnecessary_cast,
    clippy::useless_conversion,
    trivial_numeric_casts,
    reason = "what a model is given must have the type that it takes"
)]
impl Elements {
    /// `integers` as elements of another type.
    #[must_use]
    pub fn from_integers(integers: impl Iterator<Item = i32>, element: Element) -> Self {
        converted!(integers, element)
    }

    /// `floats` as elements of another type.
    #[must_use]
    pub fn from_floats(floats: impl Iterator<Item = f32>, element: Element) -> Self {
        converted!(floats, element)
    }

    /// `doubles` as elements of another type.
    #[must_use]
    pub fn from_doubles(doubles: impl Iterator<Item = f64>, element: Element) -> Self {
        converted!(doubles, element)
    }
}

/// Does the same with the values of every variant.
macro_rules! with_values {
    ($elements:expr, $values:ident => $result:expr) => {
        match $elements {
            Elements::Bool($values) => Elements::Bool($result),
            Elements::I8($values) => Elements::I8($result),
            Elements::I16($values) => Elements::I16($result),
            Elements::I32($values) => Elements::I32($result),
            Elements::I64($values) => Elements::I64($result),
            Elements::U8($values) => Elements::U8($result),
            Elements::U16($values) => Elements::U16($result),
            Elements::U32($values) => Elements::U32($result),
            Elements::U64($values) => Elements::U64($result),
            Elements::F16($values) => Elements::F16($result),
            Elements::F32($values) => Elements::F32($result),
            Elements::F64($values) => Elements::F64($result),
            Elements::Text($values) => Elements::Text($result),
        }
    };
}

impl Tensor {
    /// The elements of one row of the first dimension; none where there is no such row.
    pub(crate) fn row(&self, row: usize) -> Option<Elements> {
        let width: usize = self.shape.get(1..)?.iter().product();
        let range = row * width..(row + 1) * width;
        if row >= *self.shape.first()? {
            return None;
        }
        Some(with_values!(&self.elements, values => values.get(range)?.to_vec()))
    }
}

impl Elements {
    /// As numbers of one type; none of texts. Large integers lose their last digits.
    pub(crate) fn to_doubles(&self) -> Option<Vec<f64>> {
        Some(match self {
            Self::Bool(values) => values.iter().map(|v| f64::from(u8::from(*v))).collect(),
            Self::I8(values) => values.iter().map(|v| f64::from(*v)).collect(),
            Self::I16(values) => values.iter().map(|v| f64::from(*v)).collect(),
            Self::I32(values) => values.iter().map(|v| f64::from(*v)).collect(),
            Self::I64(values) => values.iter().map(|v| *v as f64).collect(),
            Self::U8(values) => values.iter().map(|v| f64::from(*v)).collect(),
            Self::U16(values) => values.iter().map(|v| f64::from(*v)).collect(),
            Self::U32(values) => values.iter().map(|v| f64::from(*v)).collect(),
            Self::U64(values) => values.iter().map(|v| *v as f64).collect(),
            Self::F16(values) => values.iter().map(|v| v.to_f64()).collect(),
            Self::F32(values) => values.iter().map(|v| f64::from(*v)).collect(),
            Self::F64(values) => values.clone(),
            Self::Text(_) => return None,
        })
    }
}
