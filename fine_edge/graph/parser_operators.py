"""The operators that TensorRT's ONNX parser imports, and the element types that it takes for their inputs.

Source: onnx-tensorrt 10.6 (commit 0137504), ``docs/operators.md`` and the checks of its importers, which are stricter
than the table in places and more lenient in others; what a layer of a strongly typed network takes was measured with
the layers of TensorRT-RTX 1.7.1. The parser finds an importer by the operator's name alone, whatever its domain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnx import TensorProto as T

Types = frozenset[int]

SINGLE: Types = frozenset((T.FLOAT,))
HALF: Types = SINGLE | {T.FLOAT16}
FLOATING: Types = HALF | {T.BFLOAT16}
# Types that TensorRT documents between QuantizeLinear and DequantizeLinear only.
QUANTIZED: Types = frozenset((T.INT8, T.FLOAT8E4M3FN, T.INT4))

REAL: Types = FLOATING | QUANTIZED
INTEGER: Types = frozenset((T.INT32, T.INT64))
NUMBER: Types = REAL | INTEGER
LOGICAL: Types = frozenset((T.BOOL,))
ANY: Types = NUMBER | LOGICAL
# UINT8 exists at the network's inputs and outputs only, so few operators take it.
EDGE: Types = ANY | {T.UINT8}

# Element types that the parser can convert; it computes DOUBLE as FLOAT.
KNOWN: Types = EDGE | {T.DOUBLE}

# Types to which a Cast may go; the compiler refuses casts to FP8 and INT4.
CASTABLE: Types = FLOATING | INTEGER | LOGICAL | {T.INT8, T.UINT8, T.DOUBLE}

# The most dimensions of a tensor (``Dims::MAX_DIMS``).
MOST_DIMENSIONS = 8

# The most levels of subgraphs and functions inside each other.
DEEPEST_NESTING = 24

# The first opset of which the parser can broadcast.
OLDEST_BROADCAST = 7

_EVERY = range(2**16)
_PAIR = (0, 1)
_TRIPLE = (0, 1, 2)


@dataclass(frozen=True)
class Operator:
    """What the parser takes.

    Attributes:
        takes: element types of the first inputs; inputs beyond them are not checked.
        alike: indices of the inputs that a strongly typed network wants of one type.
    """

    takes: tuple[Types, ...]
    alike: Sequence[int] = ()


def _operators(names: str, *takes: Types, alike: Sequence[int] = ()) -> dict[str, Operator]:
    return {name: Operator(takes, alike) for name in names.split()}


OPERATORS: dict[str, Operator] = {
    # One input
    **_operators("Acos Acosh Asin Asinh Atan Atanh Ceil Cos Cosh Erf Exp Floor IsInf IsNaN Log Reciprocal Round", REAL),
    **_operators("Sin Sinh Sqrt Tan Elu Gelu HardSigmoid LeakyRelu ParametricSoftplus ScaledTanh Selu Sigmoid", REAL),
    **_operators("Softplus Softsign Tanh ThresholdedRelu LogSoftmax Softmax ImageScaler LRN", REAL),
    **_operators("AveragePool MaxPool Resize Upsample ReduceL2 ReduceLogSum ReduceLogSumExp", REAL),
    **_operators("Abs Neg Sign ArgMax ArgMin DepthToSpace SpaceToDepth GlobalAveragePool GlobalMaxPool TopK", NUMBER),
    **_operators("ReduceL1 ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare", NUMBER),
    **_operators("Relu", NUMBER - {T.INT32}),
    **_operators("Celu MeanVarianceNormalization STFT", SINGLE),
    **_operators("GlobalLpPool LpNormalization LpPool Mish", HALF),
    **_operators("HardSwish", HALF | {T.INT8}),
    **_operators("Shrink", HALF | {T.INT8} | INTEGER),
    **_operators("Hardmax", FLOATING),
    **_operators("NonZero", FLOATING | INTEGER | LOGICAL),
    **_operators("Not", LOGICAL),
    **_operators("Cast CastLike", CASTABLE),
    **_operators("Identity Shape Size", EDGE),
    **_operators("Dropout Expand EyeLike Flatten Gather GatherElements GatherND Reshape ReverseSequence", ANY),
    **_operators("Slice Split Squeeze Tile Transpose Trilu Unsqueeze", ANY),
    # Several inputs of one type
    **_operators("Add Div Greater GreaterOrEqual Less LessOrEqual Mod Mul Sub", NUMBER, NUMBER, alike=_PAIR),
    **_operators("Pow GridSample MatMul PRelu", REAL, REAL, alike=_PAIR),
    **_operators("And Or Xor", LOGICAL, LOGICAL),
    **_operators("Equal", EDGE, EDGE, alike=_PAIR),
    **_operators("Max Min Sum", NUMBER, NUMBER, alike=_EVERY),
    **_operators("Mean", FLOATING, alike=_EVERY),
    **_operators("Concat", ANY, alike=_EVERY),
    **_operators("Einsum", REAL, alike=_EVERY),
    **_operators("Clip", REAL | INTEGER, alike=_TRIPLE),
    **_operators("Conv ConvTranspose Gemm GroupNormalization LayerNormalization", REAL, alike=_TRIPLE),
    **_operators("InstanceNormalization", HALF, HALF, HALF, alike=_TRIPLE),
    **_operators("NonMaxSuppression", FLOATING, FLOATING, alike=_PAIR),
    **_operators("Range", SINGLE | INTEGER, alike=_TRIPLE),
    **_operators("Where", LOGICAL, ANY, ANY, alike=(1, 2)),
    **_operators("Scatter ScatterElements ScatterND", ANY, INTEGER, ANY, alike=(0, 2)),
    # Inputs whose types only the limits of the operator know
    **_operators("BatchNormalization", FLOATING),
    **_operators("OneHot", FLOATING | INTEGER, FLOATING | INTEGER, ANY),
    **_operators("Pad", ANY),
    **_operators("BlackmanWindow HammingWindow HannWindow", INTEGER),
    **_operators("Constant ConstantOfShape If Loop Scan RandomNormal RandomUniform"),
    **_operators("RandomNormalLike RandomUniformLike QuantizeLinear DequantizeLinear"),
    **_operators("CumSum GRU LSTM RNN DeformConv RoiAlign"),
    # What the parser writes of a network, and what NVIDIA's quantizer writes
    **_operators("TRT_FP8QuantizeLinear TRT_FP8DequantizeLinear TRT_INT4QuantizeLinear TRT_INT4DequantizeLinear"),
    **_operators("TRT_AveragePool TRT_Conv TRT_Deconv TRT_FloorDiv TRT_Gather TRT_MatMul TRT_MaxAverageBlendPool"),
    **_operators("TRT_MaxPool TRT_PluginV2 TRT_RaggedSoftmax TRT_Resize TRT_Scale TRT_Shuffle TRT_Slice TRT_TopK_Min"),
}

# Operators that the parser refuses by name; it searches a plugin for any other that it does not know.
REFUSED = {
    *("AffineGrid", "Bernoulli", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "CenterCropPad"),
    *("Col2Im", "Compress", "ConcatFromSequence", "ConvInteger", "DFT", "Det", "DynamicQuantizeLinear"),
    *("ImageDecoder", "MatMulInteger", "MaxRoiPool", "MaxUnpool", "MelWeightMatrix", "Multinomial"),
    *("NegativeLogLikelihoodLoss", "Optional", "OptionalGetElement", "OptionalHasElement", "QLinearConv"),
    *("QLinearMatMul", "RegexFullMatch", "SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceErase"),
    *("SequenceInsert", "SequenceLength", "SequenceMap", "SoftmaxCrossEntropyLoss", "SplitToSequence"),
    *("StringConcat", "StringNormalizer", "StringSplit", "TfIdfVectorizer", "Unique"),
}
