//! The names that a pickle may mention.

use ::safetensors::Dtype;

use super::{Result, Value};

/// A name that a pickle may mention.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Global {
    /// A class of dictionaries.
    Dict,
    /// `argparse.Namespace`, the arguments of a command line.
    Namespace,
    /// `torch._utils._rebuild_tensor_v2` and its forerunner.
    Tensor,
    /// `torch._utils._rebuild_parameter`: its first argument is the tensor.
    Parameter,
    /// A class of typed storages, such as `torch.FloatStorage`.
    Storage(Dtype),
    /// `_codecs.encode`, which turns text to bytes.
    Encode,
    /// `numpy.dtype`: its first argument is the name.
    Dtype,
    /// `numpy.core.multiarray._reconstruct`: an array, whose state follows.
    Array,
    /// `numpy.core.numeric._frombuffer`: a whole array.
    FromBuffer,
    /// `numpy.core.multiarray.scalar`: a number of its own.
    Scalar,
    /// A class or function whose results lead to no tensor or array.
    Other,
}

/// What a pickle may mean by `module.name`.
pub(super) fn global(module: &str, name: &str) -> Result<Value> {
    let global = match (module, name) {
        ("collections", "OrderedDict" | "defaultdict" | "Counter") => Global::Dict,
        ("argparse", "Namespace") => Global::Namespace,
        ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Global::Tensor,
        ("torch._utils", "_rebuild_parameter") => Global::Parameter,
        ("torch", "BoolStorage") => Global::Storage(Dtype::BOOL),
        ("torch", "ByteStorage") => Global::Storage(Dtype::U8),
        ("torch", "CharStorage") => Global::Storage(Dtype::I8),
        ("torch", "ShortStorage") => Global::Storage(Dtype::I16),
        ("torch", "IntStorage") => Global::Storage(Dtype::I32),
        ("torch", "LongStorage") => Global::Storage(Dtype::I64),
        ("torch", "HalfStorage") => Global::Storage(Dtype::F16),
        ("torch", "BFloat16Storage") => Global::Storage(Dtype::BF16),
        ("torch", "FloatStorage") => Global::Storage(Dtype::F32),
        ("torch", "DoubleStorage") => Global::Storage(Dtype::F64),
        ("_codecs", "encode") => Global::Encode,
        ("numpy", "dtype") => Global::Dtype,
        ("numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct") => Global::Array,
        ("numpy.core.numeric" | "numpy._core.numeric", "_frombuffer") => Global::FromBuffer,
        ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar") => Global::Scalar,
        ("torch", "Size" | "device" | "float16" | "bfloat16" | "float32" | "float64")
        | (
            "pathlib" | "pathlib._local",
            "Path" | "PosixPath" | "WindowsPath" | "PurePosixPath" | "PureWindowsPath",
        )
        | ("copyreg" | "copy_reg", "_reconstructor")
        | ("datetime", "date" | "datetime" | "time" | "timedelta")
        | ("numpy", "ndarray")
        | (
            "builtins" | "__builtin__",
            "bool" | "int" | "float" | "complex" | "str" | "bytes" | "bytearray" | "list" | "tuple"
            | "dict" | "set" | "frozenset" | "range" | "slice" | "object",
        ) => Global::Other,
        _ if module.starts_with("torch.nn.modules") => {
            let advice = "save its state_dict() instead";
            return Err(format!("holds a whole module (`{module}.{name}`): {advice}"));
        }
        _ => {
            return Err(format!(
                "asks for `{module}.{name}`, which belongs to no checkpoint or data set"
            ));
        }
    };
    Ok(Value::Global(global))
}
