//! Copies of tensors from one memory to another, or within the processor's.

use std::ops::Range;
use std::ptr::{self, NonNull};

use ort::environment::Environment;
use ort::sys::OrtValue;
use ort::{AsPointer, Error as OrtError};

use super::View;

/// Tensors that are copied, and where to.
#[derive(Default)]
pub(super) struct Copies {
    pub(super) from: Vec<View>,
    pub(super) to: Vec<View>,
    /// Copies within the processor's memory, which ONNX Runtime does not make.
    pub(super) near: Vec<(Span, Span)>,
}

/// Bytes of a block of the processor's.
pub(super) struct Span {
    pub(super) start: NonNull<u8>,
    pub(super) range: Range<usize>,
}

// SAFETY: the memory belongs to a block beside it, and nothing but `Copies::make` follows it.
#[expect(unsafe_code, reason = "the pointer keeps the compiler from seeing what it owns")]
unsafe impl Send for Span {}

impl Copies {
    /// Copies each, and waits until all are there.
    #[expect(unsafe_code, reason = "tensors are copied between devices by the C function alone")]
    pub(super) fn make(&mut self, environment: &Environment) -> ort::Result<()> {
        for (from, to) in &self.near {
            // SAFETY: both lie within blocks of the `Buffers` that this is a part of, which is
            // borrowed alone, are of the same size and do not overlap, all as was checked.
            unsafe {
                let source = from.start.as_ptr().add(from.range.start);
                let target = to.start.as_ptr().add(to.range.start);
                ptr::copy_nonoverlapping(source, target, from.range.len());
            }
        }
        if self.from.is_empty() {
            return Ok(());
        }
        // SAFETY: both arrays have as many pointers as is said, to values that `self` owns, and a
        // `View` is one pointer. The values lie in blocks of the `Buffers` that this is a part of,
        // which is borrowed alone; sources and targets have the same size and do not overlap, as
        // was checked. Without a stream the call returns when the copies are made. The environment
        // lives as long as the process.
        let status = unsafe {
            (ort::api().CopyTensors)(
                environment.ptr().cast_mut(),
                self.from.as_ptr().cast::<*const OrtValue>(),
                self.to.as_mut_ptr().cast::<*const OrtValue>(),
                ptr::null_mut(),
                self.from.len(),
            )
        };
        // SAFETY: the status comes from the call right above, and is taken once.
        unsafe { OrtError::result_from_status(status) }
    }
}
