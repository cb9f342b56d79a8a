//! The Rust types that a tensor's elements can be read and written as.

use bytemuck::Pod;
use half::{bf16, f16};

use crate::DataType;

/// A Rust type with the memory layout of one tensor type (little-endian hosts only).
pub trait Element: Pod + Send + Sync {
    /// The tensor type with this layout.
    const DATATYPE: DataType;
}

macro_rules! elements {
    ($($rust:ty => $datatype:ident),* $(,)?) => {
        $(impl Element for $rust {
            const DATATYPE: DataType = DataType::$datatype;
        })*
    };
}

elements! {
    u8 => Uint8, u16 => Uint16, u32 => Uint32, u64 => Uint64,
    i8 => Int8, i16 => Int16, i32 => Int32, i64 => Int64,
    f16 => Fp16, bf16 => Bf16, f32 => Fp32, f64 => Fp64,
}

#[cfg(target_endian = "big")]
compile_error!("tensors travel as little-endian bytes and are used in place");
