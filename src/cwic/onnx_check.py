"""Whether an ONNX graph of a model file is one that training exports: plain arithmetic, all inside.

A model file may come from a stranger. ONNX Runtime runs what a graph says, and a graph can name
files to read weights from, bring functions and loops, or ask for operators of other libraries. This
module reads just enough of the protocol buffer to refuse all of that before the runtime sees it.
"""

from collections.abc import Iterator, Set

# Of the standard ONNX domain. None of them reads files, keeps state, loops, or draws at random.
OPERATORS = frozenset(
    "Add Cast Clip Concat Constant Conv ConvTranspose DepthToSpace Div Expand Floor Gather "
    "Identity LeakyRelu Max MaxPool Min Mul Pad Pow Relu Reshape Round Shape Sigmoid Slice "
    "SpaceToDepth Split Sqrt Squeeze Sub Tanh Transpose Unsqueeze".split()
)
# What networks of others that find what matters in a picture are made of besides.
DETECTOR_OPERATORS = OPERATORS | frozenset(
    "Abs And ArgMax AveragePool BatchNormalization ConstantOfShape DequantizeLinear Equal Erf Exp "
    "Flatten Gelu Gemm GlobalAveragePool GlobalMaxPool Greater GroupNormalization HardSigmoid "
    "HardSwish InstanceNormalization LayerNormalization Less Log MatMul Mish Neg Not "
    "PRelu QuantizeLinear Range ReduceMax ReduceMean ReduceMin ReduceSum Resize Softmax Softplus "
    "Sum Tile Upsample Where".split()
)
_DOMAINS = (b"", b"ai.onnx")

# Numbers of fields, as in onnx.proto.
_MODEL_GRAPH, _MODEL_OPSETS, _MODEL_TRAINING, _MODEL_FUNCTIONS = 7, 8, 20, 25
_OPSET_DOMAIN = 1
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_SPARSE = 1, 5, 15
_NODE_OPERATOR, _NODE_ATTRIBUTE, _NODE_DOMAIN = 4, 5, 7
_ATTRIBUTE_TENSOR, _ATTRIBUTE_TENSORS = 5, 10
_ATTRIBUTE_REFUSED = {6: "a subgraph", 11: "subgraphs", 22: "a sparse tensor", 23: "sparse tensors"}
_TENSOR_EXTERNAL, _TENSOR_LOCATION = 13, 14

_MAX_VARINT_BYTES = 10
_MAX_KEY_BITS = 32


def check_graph(data: bytes, operators: Set[str] = OPERATORS) -> None:
    """Accept a serialized `ModelProto` of certain operators, or say what is wrong with it.

    Raises:
        ValueError: it is damaged, or asks for what no graph of ours needs.
    """
    graphs = 0
    for field, value in fields(memoryview(data)):
        if field in (_MODEL_TRAINING, _MODEL_FUNCTIONS):
            raise ValueError("expected a graph alone, found functions or training steps beside it")
        if field == _MODEL_OPSETS:
            _check_domains(content_of(value), _OPSET_DOMAIN)
        if field == _MODEL_GRAPH:
            graphs += 1
            _check_nodes(content_of(value), operators)
    if graphs != 1:
        raise ValueError(f"expected one graph, found {graphs}")


def _check_nodes(graph: memoryview, operators: Set[str]) -> None:
    for field, value in fields(graph):
        if field == _GRAPH_SPARSE:
            raise ValueError("expected dense weights, found sparse ones")
        if field == _GRAPH_INITIALIZER:
            _check_tensor(content_of(value))
        if field == _GRAPH_NODE:
            _check_node(content_of(value), operators)


def _check_node(node: memoryview, operators: Set[str]) -> None:
    _check_domains(node, _NODE_DOMAIN)
    operator = ""
    for field, value in fields(node):
        if field == _NODE_OPERATOR:
            operator = bytes(content_of(value)).decode("utf-8", "replace")
        if field == _NODE_ATTRIBUTE:
            for kind, content in fields(content_of(value)):
                if kind in _ATTRIBUTE_REFUSED:
                    raise ValueError(f"expected plain operators, found {_ATTRIBUTE_REFUSED[kind]}")
                if kind in (_ATTRIBUTE_TENSOR, _ATTRIBUTE_TENSORS):
                    _check_tensor(content_of(content))
    if operator not in operators:
        raise ValueError(f"expected operators that networks here have, found {operator[:40]!r}")


def _check_domains(message: memoryview, number: int) -> None:
    for field, value in fields(message):
        if field == number and bytes(content_of(value)) not in _DOMAINS:
            domain = bytes(content_of(value))[:40]
            raise ValueError(f"expected standard operators, found the domain {domain!r}")


def _check_tensor(tensor: memoryview) -> None:
    for field, value in fields(tensor):
        if field == _TENSOR_EXTERNAL or (field == _TENSOR_LOCATION and value != 0):
            raise ValueError("expected weights inside the graph, found a reference to a file")


def content_of(value: "int | memoryview") -> memoryview:
    """The bytes of a field that is no number.

    Raises:
        ValueError: it is one.
    """
    if isinstance(value, int):
        raise ValueError("damaged: expected a message, found a number")
    return value


def fields(message: memoryview) -> "Iterator[tuple[int, int | memoryview]]":
    """Numbers of fields and their values: integers, or bytes of whatever else there is.

    Raises:
        ValueError: this is no message of a protocol buffer.
    """
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        if key >> _MAX_KEY_BITS:
            # Other readers drop the bits beyond and would see another field than is seen here.
            raise ValueError(f"damaged: expected a key of at most {_MAX_KEY_BITS} bits")
        field, kind = key >> 3, key & 7
        value: int | memoryview
        if kind == 0:
            value, position = _varint(message, position)
        else:
            if kind == 2:
                length, position = _varint(message, position)
            elif kind in (1, 5):
                length = 8 if kind == 1 else 4
            else:
                raise ValueError(f"damaged: expected a field of a known kind, found {kind}")
            end = position + length
            if end > len(message):
                raise ValueError("damaged: expected more bytes, found the end")
            value, position = message[position:end], end
        yield field, value


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for count in range(_MAX_VARINT_BYTES):
        if position >= len(message):
            break
        byte = message[position]
        position += 1
        value |= (byte & 127) << (7 * count)
        if byte < 128:
            return value, position
    raise ValueError("damaged: expected a number, found the end or too many digits")
