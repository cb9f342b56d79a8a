//! Blocks of memory that do not move, the processor's and a card's.

use std::alloc::{self, Layout};
use std::ptr::NonNull;
use std::slice;

use ort::value::Tensor;

/// What the memory of a block is aligned to: the width of the widest vector instructions.
const ALIGNMENT: usize = 64;

/// Memory that does not move.
pub(super) enum Block {
    /// The processor's.
    Host(HostBlock),
    /// A card's, which belongs to a tensor.
    Card { start: NonNull<u8>, bytes: usize, _tensor: Tensor<u8> },
}

// SAFETY: the memory belongs to the block alone.
#[expect(unsafe_code, reason = "the pointer keeps the compiler from seeing what it owns")]
unsafe impl Send for Block {}

impl Block {
    /// Where it begins, and how many bytes it has.
    pub(super) fn extent(&self) -> (NonNull<u8>, usize) {
        match self {
            Self::Host(block) => (block.start, block.size()),
            Self::Card { start, bytes, .. } => (*start, *bytes),
        }
    }
}

/// Memory of the processor.
pub(super) struct HostBlock {
    pub(super) start: NonNull<u8>,
    layout: Layout,
}

impl HostBlock {
    #[expect(unsafe_code, reason = "a box could not be pointed into while it is borrowed")]
    /// So many bytes of zeros; `None` when the machine does not have them.
    pub(super) fn new(bytes: usize) -> Option<Self> {
        let layout = Layout::from_size_align(bytes.max(1), ALIGNMENT).ok()?;
        // SAFETY: the layout is not empty.
        let start = NonNull::new(unsafe { alloc::alloc_zeroed(layout) })?;
        Some(Self { start, layout })
    }

    /// How many bytes it has.
    pub(super) fn size(&self) -> usize {
        self.layout.size()
    }

    #[expect(unsafe_code, reason = "the memory is known by a pointer")]
    /// All of it.
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: the memory is as long as the layout says, was zeroed when it was made, and is
        // reached through this borrow alone: what else points to it is followed in `run` and
        // `copy` only.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.layout.size()) }
    }
}

impl Drop for HostBlock {
    #[expect(unsafe_code, reason = "what was allocated by hand is freed by hand")]
    fn drop(&mut self) {
        // SAFETY: it was allocated with this layout and is freed once.
        unsafe { alloc::dealloc(self.start.as_ptr(), self.layout) };
    }
}
