"""Trains the digits classifier of this folder and writes digits.onnx and held_out.json.

Data: the 8x8 images of handwritten digits that ship with scikit-learn: 1,797 images, pixels from 0
to 16. A fifth of them, in the same mix of digits, is held out: neither training nor the choice of
the model sees it. The accuracy is measured on it with ONNX Runtime, and held_out.json holds its
first images.

    pip install scikit-learn onnx onnxruntime
    python train.py
"""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

SEED = 7
HELD_OUT_IMAGES = 40
FOLDER = Path(__file__).resolve().parent
SHIFTS = [(0, 0), (0, 1), (0, -1), (1, 0), (-1, 0)]


def shifted(images: np.ndarray, down: int, right: int) -> np.ndarray:
    """The images moved by at most one pixel, black where nothing moves in."""
    canvas = np.zeros((len(images), 10, 10), np.float32)
    canvas[:, 1 + down : 9 + down, 1 + right : 9 + right] = images.reshape(-1, 8, 8)
    return canvas[:, 1:9, 1:9].reshape(-1, 64)


def as_onnx(scaler: StandardScaler, network: MLPClassifier) -> onnx.ModelProto:
    """The pipeline in operators that every engine computes.

    skl2onnx writes scaler and classifier as operators for tables (ONNX-ML), which the server's
    built-in engine leaves to ONNX Runtime.
    """
    (to_hidden, to_output), (hidden_bias, output_bias) = network.coefs_, network.intercepts_
    constants = {
        "mean": scaler.mean_,
        "factor": 1 / scaler.scale_,
        "to_hidden": to_hidden,
        "hidden_bias": hidden_bias,
        "to_output": to_output,
        "output_bias": output_bias,
    }
    nodes = [
        helper.make_node("Sub", ["X", "mean"], ["centred"]),
        helper.make_node("Mul", ["centred", "factor"], ["scaled"]),
        helper.make_node("Gemm", ["scaled", "to_hidden", "hidden_bias"], ["hidden"]),
        helper.make_node("Relu", ["hidden"], ["active"]),
        helper.make_node("Gemm", ["active", "to_output", "output_bias"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
        # The classes are the digits in their order, so that the place is the label.
        helper.make_node("ArgMax", ["probabilities"], ["label"], axis=1, keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, [None, 64])],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, [None]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 10]),
        ],
        [numpy_helper.from_array(v.astype(np.float32), name) for name, v in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def main() -> None:
    images, labels = load_digits(return_X_y=True)
    train_images, test_images, train_labels, test_labels = train_test_split(
        images.astype(np.float32), labels, test_size=0.2, stratify=labels, random_state=SEED
    )

    # The size of the network, its penalty and the shifts were chosen by five-fold cross-validation
    # on the training images alone (mean accuracy 0.985).
    network = MLPClassifier(hidden_layer_sizes=(128,), alpha=0.01, random_state=SEED)
    scaler = StandardScaler()
    make_pipeline(scaler, network).fit(
        np.concatenate([shifted(train_images, *shift) for shift in SHIFTS]),
        np.tile(train_labels, len(SHIFTS)),
    )

    onnx_file = FOLDER / "digits.onnx"
    onnx_file.write_bytes(as_onnx(scaler, network).SerializeToString())

    session = onnxruntime.InferenceSession(str(onnx_file), providers=["CPUExecutionProvider"])
    predicted = session.run(None, {session.get_inputs()[0].name: test_images})[0]
    right = int((predicted == test_labels).sum())
    print(f"trained on {len(train_labels)} images, tested on {len(test_labels)} held-out images")
    print(f"accuracy {right / len(test_labels):.4f} ({right} of {len(test_labels)})")
    print(f"{onnx_file.name}: {onnx_file.stat().st_size} bytes")

    held_out = [
        {"label": int(label), "image": [int(pixel) for pixel in image]}
        for image, label in zip(test_images[:HELD_OUT_IMAGES], test_labels[:HELD_OUT_IMAGES])
    ]
    lines = ",\n".join("  " + json.dumps(entry, separators=(",", ":")) for entry in held_out)
    (FOLDER / "held_out.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
