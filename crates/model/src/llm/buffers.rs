//! Memory that stays in its place, the processor's and a card's, runs that read their inputs and
//! write their outputs there, and copies between the two.
//!
//! All of the crate's dealings with ONNX Runtime's C functions are here and in the parts. The safe interface of
//! `ort` copies a tensor over borrowed memory when it is bound as an input and refuses one as an
//! output, so a part of a larger buffer can be bound on both sides only through them.

mod block;
mod copies;

use std::ffi::{CString, c_char, c_void};
use std::ptr::{self, NonNull};

use bytemuck::Pod;
use consort_stage::{Error, Result};
use ort::environment::Environment;
use ort::memory::{Allocator, MemoryInfo};
use ort::session::{RunOptions, Session};
use ort::sys::OrtValue;
use ort::value::{Tensor, TensorElementType};
use ort::{AsPointer, Error as OrtError};

use self::block::{Block, HostBlock};
use self::copies::{Copies, Span};
use crate::provider::Provider;
use crate::runtime::Runtime;

/// How many zeros are copied to a card at once, to begin with.
const ZEROS: usize = 1 << 24;

/// Blocks of memory, and the runs and copies that were prepared over them.
///
/// Everything that points into a block lives as long as the block, and is followed only during
/// [`run`](Self::run) and [`copy`](Self::copy), which borrow all of it.
pub(crate) struct Buffers {
    environment: &'static Environment,
    host: MemoryInfo<'static>,
    card: Option<Card>,
    // Before the blocks, so that they are dropped first.
    calls: Vec<Call>,
    copies: Vec<Copies>,
    blocks: Vec<Block>,
}

/// The memory of a card.
struct Card {
    memory: MemoryInfo<'static>,
    allocator: Allocator,
}

/// A block of memory in [`Buffers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockId(usize);

/// A prepared run in [`Buffers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CallId(usize);

/// Prepared copies in [`Buffers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CopyId(usize);

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
        let runtime = Runtime::get()?;
        let host = Provider::Cpu.memory().map_err(|error| unknown(&error))?;
        Ok(Self {
            environment: &runtime.environment,
            host,
            card: None,
            calls: Vec::new(),
            copies: Vec::new(),
            blocks: Vec::new(),
        })
    }

    /// No memory yet, on the processor and on the card that a session runs on.
    pub(crate) fn with_card(session: &Session, index: u32) -> Result<Self> {
        Runtime::get()?.copy_to_cards()?;
        let card = || -> ort::Result<Card> {
            let provider = Provider::Cuda(index);
            Ok(Card { memory: provider.memory()?, allocator: provider.allocator(session)? })
        };
        let card = card().map_err(|error| unknown(&error))?;
        Ok(Self { card: Some(card), ..Self::new()? })
    }

    /// So many bytes of zeros; `None` when the machine does not have them.
    ///
    /// Most systems give a page of memory only when it is first written to.
    pub(crate) fn allocate(&mut self, bytes: usize) -> Option<BlockId> {
        self.blocks.push(Block::Host(HostBlock::new(bytes)?));
        Some(BlockId(self.blocks.len() - 1))
    }

    /// So many bytes of zeros where the runs read and write: on the card if there is one.
    pub(crate) fn allocate_at_home(&mut self, bytes: usize) -> Option<BlockId> {
        let Some(card) = &self.card else {
            return self.allocate(bytes);
        };
        let mut tensor = Tensor::<u8>::new(&card.allocator, [bytes.max(1) as i64]).ok()?;
        let start = NonNull::new(tensor.data_ptr_mut().cast::<u8>())?;
        self.blocks.push(Block::Card { start, bytes: bytes.max(1), _tensor: tensor });
        let block = BlockId(self.blocks.len() - 1);
        self.fill_with_zeros(block, bytes)?;
        Some(block)
    }

    /// The elements of a block; none of one on a card, which the processor cannot reach.
    pub(crate) fn slice_mut<T: Pod>(&mut self, block: BlockId) -> &mut [T] {
        let bytes = match &mut self.blocks[block.0] {
            Block::Host(block) => block.bytes_mut(),
            Block::Card { .. } => &mut [],
        };
        let whole = bytes.len() / size_of::<T>() * size_of::<T>();
        bytemuck::cast_slice_mut(&mut bytes[..whole])
    }

    /// Prepares copies of some parts into others of the same size, on the card or off it.
    pub(crate) fn prepare_copies(&mut self, pairs: &[(Part, Part)]) -> ort::Result<CopyId> {
        let copies = self.copies_of(pairs)?;
        self.copies.push(copies);
        Ok(CopyId(self.copies.len() - 1))
    }

    /// Makes prepared copies.
    pub(crate) fn copy(&mut self, id: CopyId) -> ort::Result<()> {
        self.copies[id.0].make(self.environment)
    }

    /// Copies some parts into others of the same size, once.
    pub(crate) fn copy_now(&mut self, pairs: &[(Part, Part)]) -> ort::Result<()> {
        self.copies_of(pairs)?.make(self.environment)
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

    /// Puts other parts in the place of all inputs and outputs of a prepared run, in their order.
    pub(crate) fn set<N>(
        &mut self,
        call: CallId,
        inputs: &[(N, Part)],
        outputs: &[(N, Part)],
    ) -> ort::Result<()> {
        for (index, (_, part)) in inputs.iter().enumerate() {
            self.set_input(call, index, part)?;
        }
        for (index, (_, part)) in outputs.iter().enumerate() {
            self.set_output(call, index, part)?;
        }
        Ok(())
    }

    /// Runs a session over the parts that a call names.
    #[expect(unsafe_code, reason = "outputs in place are given to the C function alone")]
    pub(crate) fn run(
        &mut self,
        session: &mut Session,
        call: CallId,
        options: Option<&RunOptions>,
    ) -> ort::Result<()> {
        let Call { inputs, outputs } = &mut self.calls[call.0];
        let options = options.map_or(ptr::null(), AsPointer::ptr);
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
        let bytes = part.bytes();
        let block = &self.blocks[part.block.0];
        let (start, size) = block.extent();
        if part.offset.saturating_add(bytes) > size {
            return Err(OrtError::new("a tensor lies outside its block"));
        }
        let memory = match (block, &self.card) {
            (Block::Card { .. }, Some(card)) => &card.memory,
            _ => &self.host,
        };
        let mut value = ptr::null_mut();
        // SAFETY: the memory is that of a part within a block of `self`, as was checked, as long
        // as the elements of the shape are, and is described as what it was allocated as; shape
        // and description are read during the call. The block is freed after the value, for
        // `calls` and `copies` are dropped before `blocks`, and other copies do not outlive a call.
        let status = unsafe {
            (ort::api().CreateTensorWithDataAsOrtValue)(
                memory.ptr(),
                start.as_ptr().add(part.offset).cast::<c_void>(),
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

    fn copies_of(&self, pairs: &[(Part, Part)]) -> ort::Result<Copies> {
        let mut copies = Copies::default();
        for (from, to) in pairs {
            if from.bytes() != to.bytes() || from.overlaps(to) {
                return Err(OrtError::new("a copy is to lie over what it is made of"));
            }
            if let (Some(from), Some(to)) = (self.near(from), self.near(to)) {
                copies.near.push((from, to));
            } else {
                copies.from.push(self.view(from)?);
                copies.to.push(self.view(to)?);
            }
        }
        Ok(copies)
    }

    /// Where a part lies that the processor reaches, and how many bytes it has.
    fn near(&self, part: &Part) -> Option<Span> {
        let Block::Host(block) = &self.blocks[part.block.0] else {
            return None;
        };
        let end = part.offset.checked_add(part.bytes())?;
        (end <= block.size()).then_some(Span { start: block.start, range: part.offset..end })
    }

    /// Puts zeros into a block on the card: what is left in its memory may be no numbers, which
    /// stay none where a mask multiplies them by zero.
    fn fill_with_zeros(&mut self, block: BlockId, bytes: usize) -> Option<()> {
        let zeros = self.allocate(bytes.min(ZEROS))?;
        for offset in (0..bytes).step_by(ZEROS) {
            let length = (bytes - offset).min(ZEROS);
            let pair =
                (Part::of_bytes((zeros, 0), length), Part::of_bytes((block, offset), length));
            self.copy_now(&[pair]).ok()?;
        }
        // The block of zeros is the last, and nothing points into it any more.
        self.blocks.pop();
        Some(())
    }
}

impl Part {
    /// A tensor of this type and shape that begins so many bytes into a block.
    pub(crate) fn new(
        (block, offset): (BlockId, usize),
        element: TensorElementType,
        shape: &[usize],
    ) -> Self {
        Self { block, offset, element, shape: shape.iter().map(|dim| *dim as i64).collect() }
    }

    /// So many bytes of a block.
    pub(crate) fn of_bytes(place: (BlockId, usize), length: usize) -> Self {
        Self::new(place, TensorElementType::Uint8, &[length])
    }

    /// How many bytes it has.
    fn bytes(&self) -> usize {
        let elements = self.shape.iter().product::<i64>() as usize;
        self.element.byte_size(elements).unwrap_or(usize::MAX)
    }

    fn overlaps(&self, other: &Self) -> bool {
        let ends_before =
            |left: &Self, right: &Self| left.offset.saturating_add(left.bytes()) <= right.offset;
        self.block == other.block && !ends_before(self, other) && !ends_before(other, self)
    }
}

fn unknown(error: &OrtError) -> Error {
    Error::internal(format!("the memory that a model runs in is not known: {error}"))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn part(block: BlockId, offset: usize, length: usize) -> Part {
        Part::of_bytes((block, offset), length)
    }

    #[test]
    fn parts_overlap_where_they_share_a_byte() {
        let (block, other) = (BlockId(0), BlockId(1));
        assert!(part(block, 0, 4).overlaps(&part(block, 3, 4)));
        assert!(part(block, 3, 1).overlaps(&part(block, 0, 8)));
        assert!(!part(block, 0, 4).overlaps(&part(block, 4, 4)));
        assert!(!part(block, 0, 4).overlaps(&part(other, 0, 4)));
    }
}
