//! A model's output tensor as JSON texts, one per row.

use serde::Serialize;
use tract_onnx::prelude::*;

/// Renders the first `rows` rows of `tensor`: a single value as itself (`7`, `"cat"`, `0.25`),
/// more than one as an array, nested as the shape says. NaN and infinities become `null`, as JSON
/// has no word for them.
pub(super) fn render_rows(tensor: &Tensor, rows: usize) -> TractResult<Vec<String>> {
    let row_shape = tensor.shape().get(1..).unwrap_or_default();
    match tensor.datum_type() {
        DatumType::String => {
            let texts = tensor.to_plain_array_view::<String>()?;
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            Ok(render(&texts, row_shape, rows))
        }
        DatumType::Bool => {
            let values = tensor.to_plain_array_view::<bool>()?;
            Ok(render(&values.iter().copied().collect::<Vec<_>>(), row_shape, rows))
        }
        DatumType::F32 => {
            let values = tensor.to_plain_array_view::<f32>()?;
            Ok(render(&values.iter().copied().collect::<Vec<_>>(), row_shape, rows))
        }
        datum_type if datum_type.is_float() => {
            let tensor = tensor.cast_to::<f64>()?;
            let values = tensor.to_plain_array_view::<f64>()?;
            Ok(render(&values.iter().copied().collect::<Vec<_>>(), row_shape, rows))
        }
        _ => {
            let tensor = tensor.cast_to::<i64>()?;
            let values = tensor.to_plain_array_view::<i64>()?;
            Ok(render(&values.iter().copied().collect::<Vec<_>>(), row_shape, rows))
        }
    }
}

fn render<T: Serialize>(values: &[T], row_shape: &[usize], rows: usize) -> Vec<String> {
    let width: usize = row_shape.iter().product();
    if width == 0 {
        return vec!["[]".to_owned(); rows];
    }
    let row_text = |row| {
        let mut text = String::new();
        write_nested(&mut text, row, row_shape);
        text
    };
    values.chunks_exact(width).take(rows).map(row_text).collect()
}

fn write_nested<T: Serialize>(text: &mut String, values: &[T], shape: &[usize]) {
    if let ([value], [] | [1]) = (values, shape) {
        return write_value(text, value);
    }
    let inner = shape.get(1..).unwrap_or_default();
    let width = inner.iter().product::<usize>().max(1);
    text.push('[');
    for (index, part) in values.chunks_exact(width).enumerate() {
        if index > 0 {
            text.push(',');
        }
        match part {
            [value] if inner.is_empty() => write_value(text, value),
            _ => write_nested(text, part, inner),
        }
    }
    text.push(']');
}

fn write_value<T: Serialize>(text: &mut String, value: &T) {
    // Straight to text, as a `Value` would widen an f32 and show 0.1 as 0.10000000149011612.
    text.push_str(&serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned()));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(tensor: &Tensor) -> Vec<String> {
        render_rows(tensor, tensor.shape()[0]).unwrap()
    }

    #[test]
    fn a_label_is_a_bare_value() {
        assert_eq!(rows(&tensor1(&[7_i64, -1])), ["7", "-1"]);
        assert_eq!(rows(&tensor2(&[[7_i64], [3]])), ["7", "3"]);
        assert_eq!(rows(&tensor1(&[0.1_f32])), ["0.1"]);
        let names = Tensor::from(tract_ndarray::arr1(&["cat".to_owned(), "a\"b".to_owned()]));
        assert_eq!(rows(&names), [r#""cat""#, r#""a\"b""#]);
    }

    #[test]
    fn a_row_of_several_values_is_an_array() {
        assert_eq!(rows(&tensor2(&[[0.5_f32, 0.25], [1.0, 0.0]])), ["[0.5,0.25]", "[1.0,0.0]"]);
        assert_eq!(rows(&tensor3(&[[[1_i32, 2], [3, 4]]])), ["[[1,2],[3,4]]"]);
        assert_eq!(rows(&tensor2(&[[f64::NAN, 1.0]])), ["[null,1.0]"]);
    }

    #[test]
    fn padding_rows_are_left_out() {
        assert_eq!(render_rows(&tensor1(&[1_i64, 2, 3]), 2).unwrap(), ["1", "2"]);
    }
}
