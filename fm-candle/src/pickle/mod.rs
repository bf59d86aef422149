//! A pickle machine that builds what a torch checkpoint or a data set holds and calls nothing.
//!
//! A pickle is a program for a stack machine. This one knows the opcodes of protocols 2 to 5
//! and a list of [`Global`]s: containers, the functions that rebuild tensors and `NumPy`'s arrays
//! (noted down, not called), and a namespace of arguments. Objects of any other class are opaque:
//! they are not made, and what they hold is not looked at, but for the pairs of a dictionary. Names
//! that run programs are refused, as is anything that calls a value.
//!
//! Values live in an arena and refer to each other by index: sharing costs nothing, nesting
//! of any depth neither recurses nor overflows, and the counts of values, memo entries and
//! bytes are bounded.
//!
//! Source: `Lib/pickletools.py` of Python; `torch/serialization.py` and `torch/_utils.py` of
//! `PyTorch`; `numpy/_core/src/multiarray/methods.c` (`array_reduce`, `array_setstate`) of `NumPy`.

use std::collections::HashMap;
use std::io::{self, Read};

use self::global::{Global, global};
use self::limits::{MAX_FOREIGN, MAX_VALUES, Result};
use self::value::{Node, NumpyArray};

pub(crate) use self::global::Element;
pub(crate) use self::limits::MAX_BYTES;
pub(crate) use self::value::{Pickle, PickledTensor, Rebuild, TensorStorage, Value};

mod global;
mod limits;
#[cfg(test)]
mod tests;
mod value;

impl Pickle {
    /// Runs the pickle at the start of `input`, reading not past its end.
    pub(crate) fn load(input: impl Read) -> Result<Self> {
        Self::load_within(input, MAX_BYTES)
    }

    /// Runs the pickle at the start of `input`, reading, and making strings, of no more than
    /// `limit` bytes.
    pub(crate) fn load_within(input: impl Read, limit: u64) -> Result<Self> {
        let input = input.take(limit);
        let pickle = Self { root: Value::None, nodes: Vec::new(), foreign: Vec::new() };
        let (stack, marks, memo) = (Vec::new(), Vec::new(), HashMap::new());
        let mut machine = Unpickler { input, stack, marks, memo, pickle, encoded: 0, limit };
        let root = machine.run()?;
        Ok(Self { root, ..machine.pickle })
    }
}

/// The running machine.
struct Unpickler<R> {
    input: io::Take<R>,
    stack: Vec<Value>,
    /// Heights of the stack at each open mark.
    marks: Vec<usize>,
    memo: HashMap<u64, Value>,
    pickle: Pickle,
    /// Bytes that strings were encoded to so far, which one string may be over and over.
    encoded: u64,
    limit: u64,
}

impl<R: Read> Unpickler<R> {
    /// Runs to the STOP opcode and returns the value on top.
    fn run(&mut self) -> Result<Value> {
        loop {
            match self.byte()? {
                b'.' => return self.pop(), // STOP
                opcode => self.step(opcode)?,
            }
            let Self { stack, marks, memo, pickle, .. } = self;
            let lens = [stack.len(), marks.len(), memo.len(), pickle.nodes.len()];
            if lens.iter().any(|&len| len > MAX_VALUES) {
                return Err(format!("the pickle makes more than {MAX_VALUES} values"));
            }
        }
    }

    /// Obeys one opcode. The names in the comments are those of `pickletools`.
    fn step(&mut self, opcode: u8) -> Result<()> {
        let value = match opcode {
            // Constants.
            b'N' => Value::None,
            0x88 => Value::Bool(true),
            0x89 => Value::Bool(false),
            b'J' => self.int(4)?,                        // BININT
            b'K' => self.unsigned(1)?,                   // BININT1
            b'M' => self.unsigned(2)?,                   // BININT2
            0x8a => self.sized(1, Self::int)?,           // LONG1
            0x8b => self.sized(4, Self::int)?,           // LONG4
            b'G' => self.float()?,                       // BINFLOAT
            b'U' | b'C' => self.sized(1, Self::binary)?, // SHORT_BINSTRING, SHORT_BINBYTES
            b'T' | b'B' => self.sized(4, Self::binary)?, // BINSTRING, BINBYTES
            0x8e | 0x96 => self.sized(8, Self::binary)?, // BINBYTES8, BYTEARRAY8
            0x8c => self.sized(1, Self::string)?,        // SHORT_BINUNICODE
            b'X' => self.sized(4, Self::string)?,        // BINUNICODE
            0x8d => self.sized(8, Self::string)?,        // BINUNICODE8
            // Containers.
            0x8f => Value::Other,                                   // EMPTY_SET
            b']' | b')' => self.add(Node::Items(Vec::new())),       // EMPTY_LIST, EMPTY_TUPLE
            b'}' => self.add(Node::Dict(Vec::new())),               // EMPTY_DICT
            b'l' | b't' => self.pop_mark().map(|v| self.items(v))?, // LIST, TUPLE
            0x85 => self.pop_array::<1>().map(|v| self.items(v.into()))?, // TUPLE1
            0x86 => self.pop_array::<2>().map(|v| self.items(v.into()))?, // TUPLE2
            0x87 => self.pop_array::<3>().map(|v| self.items(v.into()))?, // TUPLE3
            b'd' => self.pop_mark().map(|v| self.add(Node::Dict(pairs(&v))))?, // DICT
            0x91 => self.pop_mark().map(|_| Value::Other)?,         // FROZENSET
            // Globals and what is made of them.
            b'c' => self.global()?,       // GLOBAL
            0x93 => self.stack_global()?, // STACK_GLOBAL
            b'R' | 0x81 => self.pop_array().and_then(|[f, a]| self.make(f, a))?, // REDUCE, NEWOBJ
            0x92 => self.pop_array().and_then(|[f, a, _]| self.make(f, a))?, // NEWOBJ_EX
            b'Q' => self.pop().and_then(|id| self.storage(id))?, // BINPERSID
            // Copies.
            b'2' => self.top()?,                  // DUP
            b'h' => self.sized(1, Self::recall)?, // BINGET
            b'j' => self.sized(4, Self::recall)?, // LONG_BINGET
            // All others push nothing.
            _ => return self.effect(opcode),
        };
        self.stack.push(value);
        Ok(())
    }

    /// Obeys an opcode that pushes no value.
    fn effect(&mut self, opcode: u8) -> Result<()> {
        match opcode {
            0x80 => _ = self.other(1)?,                                   // PROTO
            0x95 => _ = self.other(8)?,                                   // FRAME
            b'(' => self.marks.push(self.stack.len()),                    // MARK
            b'0' => _ = self.pop()?,                                      // POP
            b'b' => self.pop().and_then(|state| self.build(state))?,      // BUILD
            b'1' | 0x90 => _ = self.pop_mark()?, // POP_MARK, ADDITEMS (a set)
            b'a' => self.pop().and_then(|v| self.append(&[v]))?, // APPEND
            b'e' => self.pop_mark().and_then(|v| self.append(&v))?, // APPENDS
            b's' => self.pop_array::<2>().and_then(|v| self.insert(&v))?, // SETITEM
            b'u' => self.pop_mark().and_then(|v| self.insert(&v))?, // SETITEMS
            b'q' => self.uint(1).and_then(|at| self.remember(at))?, // BINPUT
            b'r' => self.uint(4).and_then(|at| self.remember(at))?, // LONG_BINPUT
            0x94 => self.remember(self.memo.len() as u64)?, // MEMOIZE
            _ => {
                return Err(format!(
                    "pickle opcode {opcode:#04x} belongs to no checkpoint or data set"
                ));
            }
        }
        Ok(())
    }

    /// The value that a call of `function` would give, without the call.
    fn make(&mut self, mut function: Value, mut arguments: Value) -> Result<Value> {
        if function == Value::Global(Global::FromType)
            && let &[inner, _class, inner_arguments, ..] =
                self.pickle.items(arguments).unwrap_or_default()
        {
            (function, arguments) = (inner, inner_arguments);
        }
        let global = match function {
            Value::Global(global) => global,
            // An object of an opaque class may be called, or a class that a function made.
            Value::Other => return Ok(Value::Other),
            Value::Node(index) if matches!(self.pickle.nodes[index], Node::Foreign(_)) => {
                return Ok(Value::Other);
            }
            _ => return Err("the pickle calls a value".into()),
        };
        let arguments = self.pickle.items(arguments).unwrap_or_default();
        match (global, arguments) {
            (Global::Dict, _) => Ok(self.add(Node::Dict(Vec::new()))),
            (Global::Namespace, _) => Ok(self.add(Node::Namespace(Vec::new()))),
            (Global::Tensor, &[storage, offset, shape, stride, ref more @ ..]) => {
                let negated = self.is_negated(more.get(2));
                let rebuild = Rebuild { storage, offset, shape, stride, element: None, negated };
                Ok(self.add(Node::Tensor(rebuild)))
            }
            (
                Global::TypedTensor,
                &[storage, offset, shape, stride, _, _, element, ref more @ ..],
            ) => {
                let Value::Global(Global::ElementType(element)) = element else {
                    return Err("a tensor is of a type that is not known".into());
                };
                let (element, negated) = (Some(element), self.is_negated(more.first()));
                let rebuild = Rebuild { storage, offset, shape, stride, element, negated };
                Ok(self.add(Node::Tensor(rebuild)))
            }
            (Global::Special(special), _) => Ok(self.add(Node::Special(special))),
            (Global::Wrapped, &[tensor, ..]) => Ok(tensor),
            (Global::Encode, &[text, encoding]) => self.encode(text, encoding),
            (Global::Dtype, &[name, ..]) => Ok(self.add(Node::Dtype { name, order: Value::None })),
            (Global::Array, _) => Ok(self.add(Node::Array(NumpyArray::default()))),
            (Global::FromBuffer, &[bytes, dtype, shape, order]) => {
                let fortran = Value::Bool(self.pickle.text(order) != Some("C"));
                Ok(self.add(Node::Array(NumpyArray { shape, dtype, fortran, bytes })))
            }
            (Global::Scalar, &[dtype, bytes]) => {
                let shape = self.add(Node::Items(Vec::new()));
                let fortran = Value::Bool(false);
                Ok(self.add(Node::Array(NumpyArray { shape, dtype, fortran, bytes })))
            }
            (Global::Foreign, _) => Ok(self.add(Node::Foreign(Vec::new()))),
            (Global::Storage(_) | Global::ElementType(_) | Global::Scalar | Global::Other, _) => {
                Ok(Value::Other)
            }
            (Global::Tensor | Global::TypedTensor | Global::Wrapped | Global::FromType, _) => {
                Err("a tensor lacks its arguments".into())
            }
            (Global::Encode | Global::Dtype | Global::FromBuffer, _) => {
                Err("an array lacks its arguments".into())
            }
        }
    }

    /// Returns true if a tensor's metadata say that its elements are stored with the other sign.
    /// That they are conjugated changes no real number.
    fn is_negated(&self, metadata: Option<&Value>) -> bool {
        metadata.and_then(|&metadata| self.pickle.get(metadata, "neg")) == Some(Value::Bool(true))
    }

    /// The storage of a persistent id `("storage", class, key, device, length)`, whatever the
    /// device. Legacy files add `None`, or a part of another storage, which is refused.
    fn storage(&mut self, id: Value) -> Result<Value> {
        if let Some(
            &[kind, Value::Global(Global::Storage(element)), key, _, Value::Int(len)]
            | &[kind, Value::Global(Global::Storage(element)), key, _, Value::Int(len), Value::None],
        ) = self.pickle.items(id)
            && self.pickle.text(kind) == Some("storage")
            && let (Some(key), Ok(len)) = (self.pickle.text(key), usize::try_from(len))
        {
            let key = key.to_string();
            return Ok(self.add(Node::Storage(TensorStorage { key, element, len })));
        }
        Err("the identity of a storage is malformed".into())
    }

    /// The bytes that Python 3 writes as text up to protocol 2, a character for each.
    fn encode(&mut self, text: Value, encoding: Value) -> Result<Value> {
        let (Some(text), Some("latin1")) = (self.pickle.text(text), self.pickle.text(encoding))
        else {
            return Ok(Value::Other);
        };
        self.encoded += text.len() as u64;
        if self.encoded > self.limit {
            return Err(format!("the pickle makes more than {} bytes", self.limit));
        }
        let bytes = text.chars().map(u8::try_from).collect::<core::result::Result<_, _>>();
        Ok(self.add(Node::Bytes(bytes.map_err(|_| "text is no latin1")?)))
    }

    fn global(&mut self) -> Result<Value> {
        let (module, name) = (self.line()?, self.line()?);
        self.named(&module, &name)
    }

    fn stack_global(&mut self) -> Result<Value> {
        let names = self.pop_array::<2>()?;
        let names = names.map(|name| self.pickle.text(name).map(str::to_string));
        let [Some(module), Some(name)] = names else { return Err("a global has no name".into()) };
        self.named(&module, &name)
    }

    /// The global of a name; foreign ones are noted down.
    fn named(&mut self, module: &str, name: &str) -> Result<Value> {
        let global = global(module, name)?;
        if global == Global::Foreign && self.pickle.foreign.len() < MAX_FOREIGN {
            self.pickle.foreign.push(format!("{module}.{name}"));
        }
        Ok(Value::Global(global))
    }

    fn append(&mut self, new: &[Value]) -> Result<()> {
        if let Some(Node::Items(items)) = self.top_node()? {
            items.extend(new);
        }
        Ok(())
    }

    fn insert(&mut self, new: &[Value]) -> Result<()> {
        if let Some(Node::Dict(held) | Node::Foreign(held)) = self.top_node()? {
            held.extend(pairs(new));
        }
        Ok(())
    }

    /// Gives the object on top its state: a namespace its attributes, an array its elements, a type of
    /// numbers the order of its bytes, any other none.
    fn build(&mut self, state: Value) -> Result<()> {
        let attributes = self.pickle.dict(state).map(<[_]>::to_vec);
        let elements = match self.pickle.items(state) {
            Some(&[_version, shape, dtype, fortran, bytes]) => {
                Some(NumpyArray { shape, dtype, fortran, bytes })
            }
            _ => None,
        };
        let byte_order = match self.pickle.items(state) {
            Some(&[_version, order, ..]) => Some(order),
            _ => None,
        };
        match (self.top_node()?, attributes, elements) {
            (Some(Node::Dtype { order, .. }), ..) => *order = byte_order.unwrap_or(*order),
            (Some(Node::Namespace(held)), Some(attributes), _) => held.extend(attributes),
            (Some(Node::Array(array)), _, Some(elements)) => *array = elements,
            _ => {}
        }
        Ok(())
    }

    fn remember(&mut self, at: u64) -> Result<()> {
        let value = self.top()?;
        self.memo.insert(at, value);
        Ok(())
    }

    fn recall(&mut self, at: u64) -> Result<Value> {
        self.memo.get(&at).copied().ok_or_else(|| format!("memo entry {at} is not set"))
    }

    fn add(&mut self, node: Node) -> Value {
        self.pickle.nodes.push(node);
        Value::Node(self.pickle.nodes.len() - 1)
    }

    fn items(&mut self, items: Vec<Value>) -> Value {
        self.add(Node::Items(items))
    }

    /// The values above the innermost mark: what an opcode may take.
    fn height(&self) -> usize {
        self.stack.len() - self.marks.last().unwrap_or(&0)
    }

    fn top(&self) -> Result<Value> {
        self.stack.last().copied().ok_or_else(|| "the pickle's stack is empty".into())
    }

    fn top_node(&mut self) -> Result<Option<&mut Node>> {
        let Value::Node(index) = self.top()? else { return Ok(None) };
        Ok(self.pickle.nodes.get_mut(index))
    }

    fn pop(&mut self) -> Result<Value> {
        self.pop_array().map(|[value]| value)
    }

    fn pop_array<const N: usize>(&mut self) -> Result<[Value; N]> {
        let mut values = [Value::None; N];
        if self.height() < N {
            return Err("the pickle's stack is empty".into());
        }
        let at = self.stack.len() - N;
        values.copy_from_slice(&self.stack[at..]);
        self.stack.truncate(at);
        Ok(values)
    }

    fn pop_mark(&mut self) -> Result<Vec<Value>> {
        let at = self.marks.pop().ok_or("the pickle's stack has no mark")?;
        Ok(self.stack.split_off(at))
    }

    fn byte(&mut self) -> Result<u8> {
        let mut byte = [0];
        self.input.read_exact(&mut byte).map_err(|error| ended(&error))?;
        Ok(byte[0])
    }

    /// An unsigned little-endian number of at most 8 bytes.
    fn uint(&mut self, width: usize) -> Result<u64> {
        let mut bytes = [0; 8];
        self.input.read_exact(&mut bytes[..width]).map_err(|error| ended(&error))?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// `read` applied to the length that comes first, in `width` bytes.
    fn sized(&mut self, width: usize, read: fn(&mut Self, u64) -> Result<Value>) -> Result<Value> {
        let len = self.uint(width)?;
        read(self, len)
    }

    fn unsigned(&mut self, width: usize) -> Result<Value> {
        self.uint(width).map(|number| Value::Int(number.cast_signed()))
    }

    /// A signed little-endian number; those beyond 64 bits count as [`Value::Other`].
    fn int(&mut self, len: u64) -> Result<Value> {
        if len > 8 {
            return self.other(len);
        }
        let bytes = self.bytes(len)?;
        let negative = bytes.last().is_some_and(|&byte| byte >= 0x80);
        let mut wide = [if negative { 0xff } else { 0 }; 8];
        wide[..bytes.len()].copy_from_slice(&bytes);
        Ok(Value::Int(i64::from_le_bytes(wide)))
    }

    fn float(&mut self) -> Result<Value> {
        self.uint(8).map(|bits| Value::Float(f64::from_bits(bits.swap_bytes())))
    }

    fn string(&mut self, len: u64) -> Result<Value> {
        let text = String::from_utf8_lossy(&self.bytes(len)?).into_owned();
        Ok(self.add(Node::Text(text)))
    }

    fn binary(&mut self, len: u64) -> Result<Value> {
        let bytes = self.bytes(len)?;
        Ok(self.add(Node::Bytes(bytes)))
    }

    fn other(&mut self, len: u64) -> Result<Value> {
        self.bytes(len).map(|_| Value::Other)
    }

    fn bytes(&mut self, len: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.input.by_ref().take(len).read_to_end(&mut bytes).map_err(|error| ended(&error))?;
        if (bytes.len() as u64) < len {
            Err(ended(&io::ErrorKind::UnexpectedEof.into()))
        } else {
            Ok(bytes)
        }
    }

    fn line(&mut self) -> Result<String> {
        let mut line = Vec::new();
        loop {
            match self.byte()? {
                b'\n' => return Ok(String::from_utf8_lossy(&line).into_owned()),
                byte => line.push(byte),
            }
        }
    }
}

/// Alternate keys and values as pairs; a last key without a value is dropped.
fn pairs(values: &[Value]) -> Vec<(Value, Value)> {
    values.as_chunks().0.iter().map(|&[key, value]| (key, value)).collect()
}

fn ended(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "the pickle ends early".into(),
        _ => format!("the pickle cannot be read: {error}"),
    }
}
