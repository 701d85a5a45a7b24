//! A model's output as JSON texts, one per row.

use serde::Serialize;

use crate::tensor::{Elements, Output, Tensor};

/// Renders the first `rows` of `output`, whose first dimension is the batch.
///
/// A single value is shown as itself (`7`, `"cat"`, `0.25`), more than one as an array, nested as
/// the shape says, a map as an object. NaN and infinities become `null`, as JSON has no word for
/// them.
pub(crate) fn render_rows(output: &Output, rows: usize) -> Vec<String> {
    match output {
        Output::Maps(maps) => maps.iter().take(rows).map(|map| render_map(map)).collect(),
        Output::Tensor(tensor) => {
            render_tensor(tensor, tensor.shape.get(1..).unwrap_or_default(), rows)
        }
    }
}

/// Renders all of `output` as what one input's answer is: a model that takes one input at a time
/// may give it without a dimension for the batch.
pub(crate) fn render_whole(output: &Output) -> String {
    let text = match output {
        Output::Tensor(tensor) if tensor.shape.first() != Some(&1) => {
            render_tensor(tensor, &tensor.shape, 1).pop()
        }
        output => render_rows(output, 1).pop(),
    };
    text.unwrap_or_else(|| "[]".to_owned())
}

fn render_tensor(tensor: &Tensor, row_shape: &[usize], rows: usize) -> Vec<String> {
    match &tensor.elements {
        Elements::Bool(values) => render(values, row_shape, rows),
        Elements::I8(values) => render(values, row_shape, rows),
        Elements::I16(values) => render(values, row_shape, rows),
        Elements::I32(values) => render(values, row_shape, rows),
        Elements::I64(values) => render(values, row_shape, rows),
        Elements::U8(values) => render(values, row_shape, rows),
        Elements::U16(values) => render(values, row_shape, rows),
        Elements::U32(values) => render(values, row_shape, rows),
        Elements::U64(values) => render(values, row_shape, rows),
        Elements::F16(values) => {
            let values: Vec<f64> = values.iter().map(|value| value.to_f64()).collect();
            render(&values, row_shape, rows)
        }
        Elements::F32(values) => render(values, row_shape, rows),
        Elements::F64(values) => render(values, row_shape, rows),
        Elements::Text(values) => render(values, row_shape, rows),
    }
}

fn render_map(map: &[(String, f32)]) -> String {
    let mut text = String::from("{");
    for (index, (label, number)) in map.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        write_value(&mut text, label);
        text.push(':');
        write_value(&mut text, number);
    }
    text.push('}');
    text
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

    fn output(shape: &[usize], elements: Elements) -> Output {
        Output::Tensor(Tensor { shape: shape.to_vec(), elements })
    }

    fn rows(shape: &[usize], elements: Elements) -> Vec<String> {
        render_rows(&output(shape, elements), shape[0])
    }

    #[test]
    fn a_label_is_a_bare_value() {
        assert_eq!(rows(&[2], Elements::I64(vec![7, -1])), ["7", "-1"]);
        assert_eq!(rows(&[2, 1], Elements::I64(vec![7, 3])), ["7", "3"]);
        assert_eq!(rows(&[1], Elements::F32(vec![0.1])), ["0.1"]);
        assert_eq!(rows(&[1], Elements::Bool(vec![true])), ["true"]);
        let names = Elements::Text(vec!["cat".to_owned(), "a\"b".to_owned()]);
        assert_eq!(rows(&[2], names), [r#""cat""#, r#""a\"b""#]);
    }

    #[test]
    fn a_row_of_several_values_is_an_array() {
        let halves = Elements::F32(vec![0.5, 0.25, 1.0, 0.0]);
        assert_eq!(rows(&[2, 2], halves), ["[0.5,0.25]", "[1.0,0.0]"]);
        assert_eq!(rows(&[1, 2, 2], Elements::I32(vec![1, 2, 3, 4])), ["[[1,2],[3,4]]"]);
        assert_eq!(rows(&[1, 2], Elements::F64(vec![f64::NAN, 1.0])), ["[null,1.0]"]);
    }

    #[test]
    fn a_map_is_an_object() {
        let map = vec![("0".to_owned(), 0.25), ("a\"b".to_owned(), 0.75)];
        assert_eq!(render_rows(&Output::Maps(vec![map]), 1), [r#"{"0":0.25,"a\"b":0.75}"#]);
    }

    #[test]
    fn padding_rows_are_left_out() {
        let three = output(&[3], Elements::I64(vec![1, 2, 3]));
        assert_eq!(render_rows(&three, 2), ["1", "2"]);
    }

    #[test]
    fn one_answer_needs_no_dimension_for_the_batch() {
        assert_eq!(render_whole(&output(&[1, 2], Elements::I64(vec![1, 2]))), "[1,2]");
        assert_eq!(render_whole(&output(&[2], Elements::I64(vec![1, 2]))), "[1,2]");
        assert_eq!(render_whole(&output(&[], Elements::I64(vec![4]))), "4");
        assert_eq!(render_whole(&output(&[1], Elements::I64(vec![4]))), "4");
    }
}
