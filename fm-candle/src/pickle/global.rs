//! The names that a pickle may mention, and those that refuse it.

use ::safetensors::Dtype;

use super::limits::Result;

/// A name that a pickle may mention.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Global {
    /// A class of dictionaries.
    Dict,
    /// `argparse.Namespace`, the arguments of a command line.
    Namespace,
    /// `torch._utils._rebuild_tensor_v2` and its forerunner.
    Tensor,
    /// `torch._utils._rebuild_tensor_v3`: the same with its dtype, on a storage of bytes.
    TypedTensor,
    /// A function whose first argument is the tensor, such as `torch._utils._rebuild_parameter`.
    Wrapped,
    /// `torch._tensor._rebuild_from_type_v2`: a function, a class, and the function's arguments.
    FromType,
    /// A function that rebuilds a tensor that is no plain array of numbers.
    Special(Special),
    /// A class of storages, such as `torch.FloatStorage`.
    Storage(Element),
    /// A type of a tensor's elements, such as `torch.uint16`.
    ElementType(Element),
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
    /// A class or function that is not known here.
    Foreign,
}

/// The type of the elements of a tensor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Element {
    /// A type that safetensors has too.
    Common(Dtype),
    /// A type that torch alone has, by its name, and its bytes.
    Own(&'static str, usize),
}

impl Element {
    /// Bytes of one element.
    pub(crate) fn size(self) -> usize {
        match self {
            Self::Common(dtype) => dtype.bitsize() / 8,
            Self::Own(_, size) => size,
        }
    }
}

/// The kinds of tensors that are no plain array of numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Special {
    Sparse,
    Quantized,
    Nested,
    Meta,
    Subclass,
}

impl core::fmt::Display for Special {
    /// Writes why the tensor cannot be a weight, and the remedy.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Sparse => write!(f, "is sparse; to_dense() it before saving"),
            Self::Quantized => write!(f, "is quantized by torch; dequantize() it before saving"),
            Self::Nested => write!(f, "is a nested tensor; unbind() it before saving"),
            Self::Meta => write!(f, "is on the device `meta` and has no values"),
            Self::Subclass => {
                write!(f, "is of a class of its own; save it as a plain tensor, clone().data")
            }
        }
    }
}

/// The meaning of `module.name` in a pickle.
///
/// # Errors
///
/// Names that could run a program, and unknown functions of torch that rebuild a tensor. Nothing
/// is ever run: a file that asks for it is no honest checkpoint.
pub(super) fn global(module: &str, name: &str) -> Result<Global> {
    Ok(match (module, name) {
        ("collections", "OrderedDict" | "defaultdict" | "Counter") => Global::Dict,
        ("argparse", "Namespace") => Global::Namespace,
        ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Global::Tensor,
        ("torch._utils", "_rebuild_tensor_v3") => Global::TypedTensor,
        (
            "torch._utils",
            "_rebuild_parameter"
            | "_rebuild_parameter_with_state"
            | "_rebuild_device_tensor_from_cpu_tensor",
        ) => Global::Wrapped,
        ("torch._tensor", "_rebuild_from_type" | "_rebuild_from_type_v2") => Global::FromType,
        ("torch._utils", "_rebuild_sparse_tensor" | "_rebuild_sparse_csr_tensor") => {
            Global::Special(Special::Sparse)
        }
        ("torch._utils", "_rebuild_qtensor") => Global::Special(Special::Quantized),
        ("torch._utils", "_rebuild_nested_tensor") => Global::Special(Special::Nested),
        ("torch._utils", "_rebuild_meta_tensor_no_storage") => Global::Special(Special::Meta),
        ("torch._utils", "_rebuild_wrapper_subclass") => Global::Special(Special::Subclass),
        ("_codecs", "encode") => Global::Encode,
        ("numpy", "dtype") => Global::Dtype,
        ("numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct") => Global::Array,
        ("numpy.core.numeric" | "numpy._core.numeric", "_frombuffer") => Global::FromBuffer,
        ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar") => Global::Scalar,
        ("builtins" | "__builtin__", _) if is_plain_type(name) => Global::Other,
        _ if is_refused(module, name) => {
            return Err(format!(
                "asks for `{module}.{name}`, which belongs to no checkpoint or data set; nothing \
                 of the file was run"
            ));
        }
        ("torch" | "torch.storage", _) => match (storage(name), element(name)) {
            (Some(element), _) => Global::Storage(element),
            (_, Some(element)) => Global::ElementType(element),
            _ => Global::Foreign,
        },
        _ => Global::Foreign,
    })
}

/// The type of the elements of a class of storages; bytes for one of any type.
fn storage(class: &str) -> Option<Element> {
    let class = class.strip_suffix("Storage")?;
    element(match class {
        "Bool" => "bool",
        "Byte" | "Untyped" => "uint8",
        "Char" => "int8",
        "Short" => "int16",
        "Int" => "int32",
        "Long" => "int64",
        "Half" => "float16",
        "BFloat16" => "bfloat16",
        "Float" => "float32",
        "Double" => "float64",
        "ComplexFloat" => "complex64",
        "ComplexDouble" => "complex128",
        "QInt8" => "qint8",
        "QUInt8" => "quint8",
        "QInt32" => "qint32",
        "QUInt4x2" => "quint4x2",
        "QUInt2x4" => "quint2x4",
        _ => return None,
    })
}

/// The type of elements that torch calls so.
fn element(name: &str) -> Option<Element> {
    /// Types that torch alone has, and their bytes.
    const OWN: [(&str, usize); 7] = [
        ("complex32", 4),
        ("complex128", 16),
        ("qint8", 1),
        ("quint8", 1),
        ("qint32", 4),
        ("quint4x2", 1),
        ("quint2x4", 1),
    ];
    Some(Element::Common(match name {
        "bool" => Dtype::BOOL,
        "uint8" => Dtype::U8,
        "int8" => Dtype::I8,
        "uint16" => Dtype::U16,
        "int16" => Dtype::I16,
        "uint32" => Dtype::U32,
        "int32" => Dtype::I32,
        "uint64" => Dtype::U64,
        "int64" => Dtype::I64,
        "float8_e4m3fn" => Dtype::F8_E4M3,
        "float8_e5m2" => Dtype::F8_E5M2,
        "float8_e4m3fnuz" => Dtype::F8_E4M3FNUZ,
        "float8_e5m2fnuz" => Dtype::F8_E5M2FNUZ,
        "float8_e8m0fnu" => Dtype::F8_E8M0,
        "float16" => Dtype::F16,
        "bfloat16" => Dtype::BF16,
        "float32" => Dtype::F32,
        "float64" => Dtype::F64,
        "complex64" => Dtype::C64,
        _ => {
            let &(name, size) = OWN.iter().find(|(own, _)| *own == name)?;
            return Some(Element::Own(name, size));
        }
    }))
}

/// Returns true if one of Python's built-in names is a harmless type. So is `getattr`, which finds
/// the members of an enumeration and the methods of an object, while nothing is called.
fn is_plain_type(name: &str) -> bool {
    matches!(
        name,
        "getattr"
            | "xrange"
            | "long"
            | "unicode"
            | "basestring"
            | "bool"
            | "int"
            | "float"
            | "complex"
            | "str"
            | "bytes"
            | "bytearray"
            | "list"
            | "tuple"
            | "dict"
            | "set"
            | "frozenset"
            | "range"
            | "slice"
            | "object"
            | "type"
            | "NoneType"
            | "Ellipsis"
            | "NotImplemented"
            | "enumerate"
            | "zip"
            | "map"
            | "filter"
            | "property"
    ) || name.ends_with("Error")
        || name.ends_with("Exception")
        || name.ends_with("Warning")
}

/// Returns true if a name is one that attacks use, or a function of torch that holds a tensor and
/// is not known here.
fn is_refused(module: &str, name: &str) -> bool {
    const MODULES: [&str; 34] = [
        "__builtin__",
        "_pickle",
        "_posixsubprocess",
        "_thread",
        "asyncio",
        "bdb",
        "builtins",
        "cProfile",
        "cffi",
        "cloudpickle",
        "code",
        "codeop",
        "commands",
        "ctypes",
        "dill",
        "imp",
        "importlib",
        "io",
        "marshal",
        "multiprocessing",
        "nt",
        "os",
        "pdb",
        "pickle",
        "pip",
        "popen2",
        "posix",
        "profile",
        "pty",
        "runpy",
        "shutil",
        "socket",
        "subprocess",
        "sys",
    ];
    const NAMES: [(&str, &str); 9] = [
        ("operator", "attrgetter"),
        ("operator", "methodcaller"),
        ("_operator", "attrgetter"),
        ("_operator", "methodcaller"),
        ("types", "CodeType"),
        ("types", "FunctionType"),
        ("timeit", "timeit"),
        ("webbrowser", "open"),
        ("torch", "load"),
    ];
    let package = module.split('.').next().unwrap_or_default();
    MODULES.contains(&package)
        || NAMES.contains(&(module, name))
        || (package == "torch" && name.starts_with("_rebuild"))
        // Attributes of a module, which a name with a dot reaches, may be anything.
        || name.split('.').any(|part| part == "__builtins__" || part == "__globals__")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_run_is_refused_and_all_else_is_foreign_or_known() {
        for (module, name) in [
            ("posix", "system"),
            ("os.path", "join"),
            ("builtins", "eval"),
            ("__builtin__", "__import__"),
            ("importlib._bootstrap", "_find_spec"),
            ("torch.utilz", "_rebuild_tensor_v2"),
            ("torch", "load"),
            ("code", "InteractiveInterpreter"),
            ("mine", "Config.__globals__"),
        ] {
            assert!(global(module, name).is_err(), "{module}.{name}");
        }
        for (module, name) in [
            ("collections", "deque"),
            ("mycfg", "Config"),
            ("torch.optim.adam", "Adam"),
            ("torch.nn.modules.linear", "Linear"),
            ("oslo", "Config"),
        ] {
            assert_eq!(global(module, name).unwrap(), Global::Foreign, "{module}");
        }
        let complex = Global::ElementType(Element::Own("complex128", 16));
        assert_eq!(global("torch", "complex128").unwrap(), complex);
        let half = Global::Storage(Element::Common(Dtype::F16));
        assert_eq!(global("torch", "HalfStorage").unwrap(), half);
    }
}
