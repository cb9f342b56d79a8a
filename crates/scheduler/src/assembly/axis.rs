//! Lengthens a tensor along one axis with zeros and shortens it again.

use bytes::{BufMut, Bytes, BytesMut};
use consort_stage::{Result, Strings, Tensor};

/// The bytes before the content of each element of a `BYTES` tensor; zero for an empty one.
const EMPTY_STRING: usize = 4;

/// Appends a tensor's rows to `data`, made as long as `size` along `axis` with zeros or empty
/// strings.
pub(super) fn append(data: &mut BytesMut, tensor: &Tensor, axis: usize, size: i64) -> Result<()> {
    let own = tensor.shape[axis];
    if own >= size {
        data.put_slice(&tensor.data);
        return Ok(());
    }
    let inner: i64 = tensor.shape[axis + 1..].iter().product();
    let missing = ((size - own) * inner) as usize;
    let (mut at, mut strings) = (0, Strings::new(&tensor.data));
    for _ in 0..tensor.shape[..axis].iter().product::<i64>() {
        let elements = (own * inner) as usize;
        let block = match tensor.datatype.size() {
            Some(size) => elements * size,
            None => strings_size(&mut strings, elements)?,
        };
        data.put_slice(&tensor.data[at..at + block]);
        at += block;
        data.put_bytes(0, missing * tensor.datatype.size().unwrap_or(EMPTY_STRING));
    }
    Ok(())
}

/// The bytes that [`append`] adds for a tensor.
pub(super) fn appended_size(tensor: &Tensor, axis: usize, size: i64) -> usize {
    let others: i64 =
        tensor.shape.iter().enumerate().filter(|(at, _)| *at != axis).map(|(_, dim)| dim).product();
    let missing = others * (size - tensor.shape[axis]).max(0);
    tensor.data.len() + missing as usize * tensor.datatype.size().unwrap_or(EMPTY_STRING)
}

/// Cuts a tensor to its first `size` elements along `axis`; without a copy where nothing lies
/// between what is kept.
pub(super) fn cut(tensor: &mut Tensor, axis: usize, size: i64) -> Result<()> {
    let own = tensor.shape[axis];
    if own <= size {
        return Ok(());
    }
    let outer = tensor.shape[..axis].iter().product::<i64>() as usize;
    let inner: i64 = tensor.shape[axis + 1..].iter().product();
    let (kept, left) = ((size * inner) as usize, ((own - size) * inner) as usize);
    let mut strings = Strings::new(&tensor.data);
    let mut pieces = Vec::with_capacity(outer);
    let mut at = 0;
    for _ in 0..outer {
        let (keep, leave) = match tensor.datatype.size() {
            Some(size) => (kept * size, left * size),
            None => (strings_size(&mut strings, kept)?, strings_size(&mut strings, left)?),
        };
        pieces.push(at..at + keep);
        at += keep + leave;
    }
    let data = match pieces.as_slice() {
        [only] => tensor.data.slice(only.clone()),
        many => {
            let mut data = BytesMut::with_capacity(many.iter().map(ExactSizeIterator::len).sum());
            for piece in many {
                data.put_slice(&tensor.data[piece.clone()]);
            }
            data.freeze()
        }
    };
    tensor.data = data;
    tensor.shape[axis] = size;
    Ok(())
}

/// Takes the first `rows` rows off `rest`, without a copy.
pub(super) fn take_rows(rest: &mut Tensor, rows: usize) -> Result<Bytes> {
    let elements = rest.shape[1..].iter().product::<i64>() as usize * rows;
    rest.shape[0] -= rows as i64;
    take_elements(rest, elements)
}

/// Takes the data of the first `elements` off `rest`, without a copy; its shape stays.
pub(super) fn take_elements(rest: &mut Tensor, elements: usize) -> Result<Bytes> {
    let size = match rest.datatype.size() {
        Some(size) => elements * size,
        None => strings_size(&mut Strings::new(&rest.data), elements)?,
    };
    Ok(rest.data.split_to(size))
}

/// The bytes that the next `count` strings take.
fn strings_size(strings: &mut Strings<'_>, count: usize) -> Result<usize> {
    strings.take(count).map(|string| Ok(EMPTY_STRING + string?.len())).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengthened(tensor: &Tensor, axis: usize, size: i64) -> Tensor {
        let mut data = BytesMut::new();
        append(&mut data, tensor, axis, size).unwrap();
        assert_eq!(data.len(), appended_size(tensor, axis, size));
        let mut shape = tensor.shape.clone();
        shape[axis] = size;
        Tensor::new("x", tensor.datatype, shape, data.freeze()).unwrap()
    }

    #[test]
    fn what_is_lengthened_and_cut_is_what_it_was() {
        let numbers = Tensor::from_vec("x", &[2, 2, 2], (1..=8_i32).collect());
        for axis in [1, 2] {
            let mut longer = lengthened(&numbers, axis, 3);
            assert_ne!(longer, numbers);
            cut(&mut longer, axis, 2).unwrap();
            assert_eq!(longer, numbers);
        }
        let strings = Tensor::from_strings("x", &[2, 2], &["a", "", "bcd", "é"]);
        let mut longer = lengthened(&strings, 1, 3);
        assert_eq!(
            longer.to_strings().unwrap(),
            [b"a".as_slice(), b"", b"", b"bcd", "é".as_bytes(), b""]
        );
        cut(&mut longer, 1, 2).unwrap();
        assert_eq!(longer, strings);
    }

    #[test]
    fn zeros_follow_each_row() {
        let tensor = Tensor::from_vec("x", &[2, 1], vec![7_i32, 8]);
        let longer = lengthened(&tensor, 1, 3);
        assert_eq!(&*longer.to_slice::<i32>().unwrap(), [7, 0, 0, 8, 0, 0]);
    }

    #[test]
    fn one_row_is_cut_without_a_copy() {
        let mut tensor = Tensor::from_vec("x", &[1, 3, 2], (0..6_i32).collect());
        let before = tensor.data.as_ptr();
        cut(&mut tensor, 1, 2).unwrap();
        assert_eq!(tensor.data.as_ptr(), before);
        assert_eq!(&*tensor.to_slice::<i32>().unwrap(), [0, 1, 2, 3]);
    }
}
