//! A caller's word that it has what it wanted, before the answer is complete.

use tokio_util::sync::CancellationToken;

/// Tells a caller that has enough from one that has gone.
///
/// Dropping the responses cancels a call in either case. Where this was said before, the call is
/// counted as answered.
#[derive(Clone, Debug, Default)]
pub struct Enough(CancellationToken);

impl Enough {
    /// The gRPC metadata by which a caller says that it may send this word.
    pub const METADATA: &str = "consort-enough";

    /// One for a call within another, for which the outer caller's word counts as well.
    pub fn within(outer: Option<&Self>) -> Self {
        outer.map_or_else(Self::default, |outer| Self(outer.0.child_token()))
    }

    /// Says so, of this call and all within it.
    pub fn say(&self) {
        self.0.cancel();
    }

    /// Whether it was said.
    pub fn is_said(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Waits until it is said.
    pub async fn said(&self) {
        self.0.cancelled().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_goes_inwards_and_not_outwards() {
        let outer = Enough::default();
        let (inner, other) = (Enough::within(Some(&outer)), Enough::within(Some(&outer)));
        inner.say();
        assert_eq!([&outer, &inner, &other].map(Enough::is_said), [false, true, false]);
        outer.say();
        assert!(other.is_said());
        assert!(!Enough::within(None).is_said());
    }
}
