//! Memory that stays in its place, and runs that read their inputs and write their outputs there.
//!
//! All of the crate's dealings with ONNX Runtime's C functions are here. The safe interface of
//! `ort` copies a tensor over borrowed memory when it is bound as an input and refuses one as an
//! output, so a part of a larger buffer can be bound on both sides only through them.

use std::alloc::{self, Layout};
use std::ffi::{CString, c_char, c_void};
use std::ptr::{self, NonNull};
use std::slice;

use bytemuck::Pod;
use consort_stage::{Error, Result};
use ort::memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType};
use ort::session::Session;
use ort::sys::{OrtRunOptions, OrtValue};
use ort::value::TensorElementType;
use ort::{AsPointer, Error as OrtError};

/// What the memory of a block is aligned to: the width of the widest vector instructions.
const ALIGNMENT: usize = 64;

/// Blocks of memory, and the runs that were prepared over them.
///
/// Everything that points into a block lives as long as the block, and is followed only during
/// [`run`](Self::run), which borrows all of it.
pub(crate) struct Buffers {
    memory: MemoryInfo<'static>,
    // Before the blocks, so that it is dropped first.
    calls: Vec<Call>,
    blocks: Vec<Block>,
}

/// A block of memory in [`Buffers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockId(usize);

/// A prepared run in [`Buffers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CallId(usize);

/// A tensor that lies in a block.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    /// The block it lies in.
    pub(crate) block: BlockId,
    /// How many bytes of the block come before it.
    pub(crate) offset: usize,
    /// The type of its elements.
    pub(crate) element: TensorElementType,
    /// Its shape.
    pub(crate) shape: Vec<i64>,
}

/// A tensor of the graph, by name, and where it lies.
pub(crate) type Argument<'a> = (&'a str, Part);

impl Buffers {
    /// No memory yet, on the processor.
    pub(crate) fn new() -> Result<Self> {
        let memory =
            MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Device, MemoryType::Default);
        let memory = memory.map_err(|error| {
            Error::internal(format!("the processor's memory is not known: {error}"))
        })?;
        Ok(Self { memory, calls: Vec::new(), blocks: Vec::new() })
    }

    /// So many bytes of zeros; `None` when the machine does not have them.
    ///
    /// Most systems give a page of memory only when it is first written to.
    pub(crate) fn allocate(&mut self, bytes: usize) -> Option<BlockId> {
        self.blocks.push(Block::new(bytes)?);
        Some(BlockId(self.blocks.len() - 1))
    }

    /// The elements of a block.
    pub(crate) fn slice_mut<T: Pod>(&mut self, block: BlockId) -> &mut [T] {
        let bytes = self.blocks[block.0].bytes_mut();
        let whole = bytes.len() / size_of::<T>() * size_of::<T>();
        bytemuck::cast_slice_mut(&mut bytes[..whole])
    }

    /// Prepares a run over parts of the blocks; the same part may be input and output.
    pub(crate) fn prepare(
        &mut self,
        inputs: &[Argument<'_>],
        outputs: &[Argument<'_>],
    ) -> ort::Result<CallId> {
        let call = Call { inputs: self.arguments(inputs)?, outputs: self.arguments(outputs)? };
        self.calls.push(call);
        Ok(CallId(self.calls.len() - 1))
    }

    /// Puts another part in the place of an input of a prepared run.
    pub(crate) fn set_input(&mut self, call: CallId, index: usize, part: &Part) -> ort::Result<()> {
        let view = self.view(part)?;
        self.calls[call.0].inputs.views[index] = view;
        Ok(())
    }

    /// Puts another part in the place of an output of a prepared run.
    pub(crate) fn set_output(
        &mut self,
        call: CallId,
        index: usize,
        part: &Part,
    ) -> ort::Result<()> {
        let view = self.view(part)?;
        self.calls[call.0].outputs.views[index] = view;
        Ok(())
    }

    /// Runs a session over the parts that a call names.
    #[expect(unsafe_code, reason = "outputs in place are given to the C function alone")]
    pub(crate) fn run(&mut self, session: &mut Session, call: CallId) -> ort::Result<()> {
        let Call { inputs, outputs } = &mut self.calls[call.0];
        let options: *const OrtRunOptions = ptr::null();
        // SAFETY: the session is borrowed alone, so no other run uses it. Names and values are
        // arrays of as many pointers as is said, to strings and values that `self` owns, and a
        // `View` is one pointer. The values' memory belongs to blocks of `self`, which nobody else
        // can reach while it is borrowed alone; that an input and an output may be one value is
        // what ONNX Runtime's own bindings do for a shared cache. It replaces no output that is
        // given, so that each pointer stays the one its `View` owns.
        let status = unsafe {
            (ort::api().Run)(
                session.ptr_mut(),
                options,
                inputs.pointers.as_ptr(),
                inputs.views.as_ptr().cast::<*const OrtValue>(),
                inputs.views.len(),
                outputs.pointers.as_ptr(),
                outputs.views.len(),
                outputs.views.as_mut_ptr().cast::<*mut OrtValue>(),
            )
        };
        // SAFETY: the status comes from the call right above, and is taken once.
        unsafe { OrtError::result_from_status(status) }
    }

    fn arguments(&self, arguments: &[Argument<'_>]) -> ort::Result<Arguments> {
        let names = arguments.iter().map(|(name, _)| CString::new(*name).map_err(OrtError::wrap));
        let names = names.collect::<ort::Result<Vec<_>>>()?;
        let pointers = names.iter().map(|name| name.as_ptr()).collect();
        let views = arguments.iter().map(|(_, part)| self.view(part));
        Ok(Arguments { views: views.collect::<ort::Result<_>>()?, pointers, _names: names })
    }

    /// A tensor over a part, which must lie within its block.
    #[expect(unsafe_code, reason = "tensors over memory of our own are made by the C function")]
    fn view(&self, part: &Part) -> ort::Result<View> {
        let elements = part.shape.iter().product::<i64>() as usize;
        let bytes = part.element.byte_size(elements).unwrap_or(usize::MAX);
        let block = &self.blocks[part.block.0];
        if part.offset.saturating_add(bytes) > block.layout.size() {
            return Err(OrtError::new("a tensor lies outside its block"));
        }
        let mut value = ptr::null_mut();
        // SAFETY: the memory is that of a part within a block of `self`, as was checked, as long
        // as the elements of the shape are; the shape and the memory's description are read during
        // the call. The block is freed after the value, for `calls` is dropped before `blocks`.
        let status = unsafe {
            (ort::api().CreateTensorWithDataAsOrtValue)(
                self.memory.ptr(),
                block.start.as_ptr().add(part.offset).cast::<c_void>(),
                bytes,
                part.shape.as_ptr(),
                part.shape.len(),
                part.element.into(),
                &raw mut value,
            )
        };
        // SAFETY: the status comes from the call right above, and is taken once.
        unsafe { OrtError::result_from_status(status) }?;
        NonNull::new(value).map(View).ok_or_else(|| OrtError::new("a tensor was not made"))
    }
}

/// The inputs and outputs of one run.
struct Call {
    inputs: Arguments,
    outputs: Arguments,
}

/// Names and values, as the C functions take them.
struct Arguments {
    views: Vec<View>,
    /// Where the names lie, in their order.
    pointers: Vec<*const c_char>,
    _names: Vec<CString>,
}

// SAFETY: the pointers are to the strings beside them, which do not move with the vector, and
// nothing but their owner follows them.
#[expect(unsafe_code, reason = "the pointers keep the compiler from seeing what it owns")]
unsafe impl Send for Arguments {}

/// A tensor over a part of a block.
#[repr(transparent)]
struct View(NonNull<OrtValue>);

// SAFETY: ONNX Runtime's values belong to no thread; this one has one owner.
#[expect(unsafe_code, reason = "the pointer keeps the compiler from seeing what it owns")]
unsafe impl Send for View {}

impl Drop for View {
    #[expect(unsafe_code, reason = "values are released by the C function")]
    fn drop(&mut self) {
        // SAFETY: the value was made by `Buffers::view`, is owned by this alone, and is released
        // once. It does not own its memory, which stays.
        unsafe { (ort::api().ReleaseValue)(self.0.as_ptr()) };
    }
}

/// Memory that does not move.
struct Block {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the memory belongs to the block alone.
#[expect(unsafe_code, reason = "the pointer keeps the compiler from seeing what it owns")]
unsafe impl Send for Block {}

impl Block {
    #[expect(unsafe_code, reason = "a box could not be pointed into while it is borrowed")]
    fn new(bytes: usize) -> Option<Self> {
        let layout = Layout::from_size_align(bytes.max(1), ALIGNMENT).ok()?;
        // SAFETY: the layout is not empty.
        let start = NonNull::new(unsafe { alloc::alloc_zeroed(layout) })?;
        Some(Self { start, layout })
    }

    #[expect(unsafe_code, reason = "the memory is known by a pointer")]
    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: the memory is as long as the layout says, was zeroed when it was made, and is
        // reached through this borrow alone: what else points to it is followed in `run` only.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.layout.size()) }
    }
}

impl Drop for Block {
    #[expect(unsafe_code, reason = "what was allocated by hand is freed by hand")]
    fn drop(&mut self) {
        // SAFETY: it was allocated with this layout and is freed once.
        unsafe { alloc::dealloc(self.start.as_ptr(), self.layout) };
    }
}
