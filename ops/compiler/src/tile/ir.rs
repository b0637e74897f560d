//! Values, types, operations, functions.

use crate::Elem;
use crate::error::Loc;
use crate::tile::OpKind;

/// Greatest number of elements of a tile (Triton's own limit).
pub const MAX_TILE_ELEMS: u64 = 1 << 20;

/// What a pointer or element of a tile is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Item {
    /// A number.
    Elem(Elem),
    /// A pointer to numbers in global memory.
    Ptr(Elem),
}

impl Item {
    /// The number type; `None` for pointers.
    pub fn elem(self) -> Option<Elem> {
        match self {
            Item::Elem(e) => Some(e),
            Item::Ptr(_) => None,
        }
    }
}

/// Type of a value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Type {
    /// One item.
    Scalar(Item),
    /// A tile; extents are powers of two, at least 1. Rank 1 or more.
    Tile(Vec<u32>, Item),
    /// A pointer to a tile in global memory (`!tt.ptr<tensor<…>>`, made by `tt.make_tensor_ptr`).
    BlockPtr(Vec<u32>, Elem),
    /// A descriptor of a tensor in global memory (`!tt.tensordesc<tensor<…>>`) with its tile shape.
    Descriptor(Vec<u32>, Elem),
}

impl Type {
    /// A scalar number.
    pub fn scalar(elem: Elem) -> Type {
        Type::Scalar(Item::Elem(elem))
    }
    /// A tile of numbers.
    pub fn tile(shape: &[u32], elem: Elem) -> Type {
        Type::Tile(shape.to_vec(), Item::Elem(elem))
    }
    /// Extents; empty for scalars.
    pub fn shape(&self) -> &[u32] {
        match self {
            Type::Scalar(_) => &[],
            Type::Tile(s, _) | Type::BlockPtr(s, _) | Type::Descriptor(s, _) => s,
        }
    }
    /// The item of a scalar or tile.
    pub fn item(&self) -> Option<Item> {
        match self {
            Type::Scalar(i) | Type::Tile(_, i) => Some(*i),
            _ => None,
        }
    }
    /// The number type of a scalar or tile of numbers.
    pub fn elem(&self) -> Option<Elem> {
        self.item().and_then(Item::elem)
    }
    /// Number of items; 1 for scalars.
    pub fn elems(&self) -> u64 {
        self.shape().iter().map(|n| u64::from(*n)).product()
    }
    /// The same shape with another item.
    pub fn with_item(&self, item: Item) -> Type {
        match self {
            Type::Scalar(_) => Type::Scalar(item),
            other => Type::Tile(other.shape().to_vec(), item),
        }
    }
    /// Whether it is a tile.
    pub fn is_tile(&self) -> bool {
        matches!(self, Type::Tile(..))
    }
}

/// A value of a function: an argument, an operation's result or a block's argument. Index into [`Function::types`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value(pub u32);

/// Operations in order; a region of an operation, or the body of a function.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Block {
    /// Values bound when the block is entered (loop variable first, then what is carried).
    pub args: Vec<Value>,
    /// Operations; the last one of a region is [`OpKind::Yield`], of a function [`OpKind::Return`].
    pub ops: Vec<Op>,
}

/// An operation.
#[derive(Clone, Debug, PartialEq)]
pub struct Op {
    /// What it does, with its attributes.
    pub kind: OpKind,
    /// Operands in the order stated at the kind.
    pub operands: Vec<Value>,
    /// Results.
    pub results: Vec<Value>,
    /// Regions, as stated at the kind.
    pub regions: Vec<Block>,
    /// Where it stood in the text.
    pub loc: Loc,
}

/// What is known of an argument (`tt.divisibility`, `tt.pointer_range`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArgFacts {
    /// The address in bytes, or the integer, is a multiple of this.
    pub divisibility: u32,
    /// Offsets from the pointer fit 32 bits.
    pub small: bool,
}

impl Default for ArgFacts {
    fn default() -> ArgFacts {
        ArgFacts { divisibility: 1, small: false }
    }
}

/// A function; kernels are the public ones and return nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Function {
    /// Name without `@`.
    pub name: String,
    /// Whether it is an entry point.
    pub public: bool,
    /// Facts by argument; the arguments themselves are `body.args`.
    pub facts: Vec<ArgFacts>,
    /// Types of what it returns.
    pub results: Vec<Type>,
    /// Its operations.
    pub body: Block,
    /// Type of every value, by index.
    pub types: Vec<Type>,
}

impl Function {
    /// Type of a value.
    pub fn ty(&self, value: Value) -> &Type {
        &self.types[value.0 as usize]
    }
    /// A new value.
    pub fn value(&mut self, ty: Type) -> Value {
        self.types.push(ty);
        Value(self.types.len() as u32 - 1)
    }
}

/// A module: kernels and the functions they call.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Program {
    /// Functions in the order of the text.
    pub functions: Vec<Function>,
}

impl Program {
    /// A function by name.
    pub fn function(&self, name: &str) -> Option<&Function> {
        self.functions.iter().find(|f| f.name == name)
    }
}
