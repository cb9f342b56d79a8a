//! Makes the tensors whose elements a configuration describes: zeros, anything, or those of a file.

use std::fs;
use std::path::{Component, Path};
use std::sync::Arc;

use consort_config::{Filling, FillingData};
use consort_stage::{DataType, Error, Result, Tensor};

/// The tensor `name` of the elements that `filling` describes, whose files lie in `folder`.
///
/// With `rows` the tensor has a batch dimension in front, and every row is the same.
pub(crate) fn fill(
    name: &Arc<str>,
    filling: &Filling,
    rows: Option<usize>,
    folder: &Path,
) -> Result<Tensor> {
    let place = |error: Error| error.within(format!("input '{name}': "));
    let row = row(filling, folder).map_err(place)?;
    let batch = rows.map(|rows| rows as i64);
    let shape = batch.into_iter().chain(filling.dims.iter().copied()).collect();
    let data = repeat(row, rows.unwrap_or(1)).map_err(place)?;
    Tensor::new(name.clone(), filling.datatype, shape, data.into())
}

/// The bytes of one row.
fn row(filling: &Filling, folder: &Path) -> Result<Vec<u8>> {
    let sizes = filling.dims.iter().map(|dim| usize::try_from(*dim).ok());
    // An empty string is its length alone.
    let element = filling.datatype.size().unwrap_or(size_of::<u32>());
    let size = sizes
        .chain([Some(element)])
        .try_fold(1_usize, |size, dim| size.checked_mul(dim?))
        .ok_or_else(too_large)?;
    match &filling.data {
        FillingData::File(file) => from_file(folder, file, filling.datatype, size),
        FillingData::Random if filling.datatype != DataType::Bytes => {
            let mut bytes = zeros(size)?;
            scatter(filling.datatype, &mut bytes);
            Ok(bytes)
        }
        FillingData::Zero | FillingData::Random => zeros(size),
    }
}

fn zeros(size: usize) -> Result<Vec<u8>> {
    repeat(vec![0], size)
}

fn repeat(row: Vec<u8>, times: usize) -> Result<Vec<u8>> {
    if times == 1 {
        return Ok(row);
    }
    let size = row.len().checked_mul(times).ok_or_else(too_large)?;
    let mut bytes = Vec::new();
    // A configuration must not bring the process down.
    bytes.try_reserve_exact(size).map_err(|_| too_large())?;
    for _ in 0..times {
        bytes.extend_from_slice(&row);
    }
    Ok(bytes)
}

fn too_large() -> Error {
    Error::invalid("there is no memory for so many elements")
}

/// The elements in a file: raw little-endian bytes, strings each behind its length.
fn from_file(folder: &Path, file: &str, datatype: DataType, size: usize) -> Result<Vec<u8>> {
    let folder_name = folder.file_name().unwrap_or_default().to_string_lossy();
    let shown = format!("`{folder_name}/{file}`");
    if !Path::new(file).components().all(|part| matches!(part, Component::Normal(_))) {
        return Err(Error::invalid(format!("{shown} is not inside the folder `{folder_name}`")));
    }
    let mut bytes = fs::read(folder.join(file))
        .map_err(|error| Error::not_found(format!("{shown} cannot be read: {error}")))?;
    if datatype == DataType::Bytes {
        return Ok(bytes);
    }
    if bytes.len() < size {
        return Err(Error::invalid(format!(
            "warmup setting expects {size} bytes, but the data provided from {file} only has {} \
             bytes",
            bytes.len()
        )));
    }
    // Triton, too, reads no further than it must.
    bytes.truncate(size);
    Ok(bytes)
}

/// Overwrites `bytes` with numbers that any model can take: whole ones from 0 to 1, which are in
/// every vocabulary, and others from 0.5 to 1. The same come every time.
fn scatter(datatype: DataType, bytes: &mut [u8]) {
    let Some(size) = datatype.size() else { return };
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    for element in bytes.chunks_exact_mut(size) {
        state = xorshift(state);
        let bits = match datatype {
            DataType::Fp16 => 0x3800 | state >> 54,
            DataType::Bf16 => 0x3F00 | state >> 57,
            DataType::Fp32 => 0x3F00_0000 | state >> 41,
            DataType::Fp64 => 0x3FE0_0000_0000_0000 | state >> 12,
            _ => state >> 63,
        };
        element.copy_from_slice(&bits.to_le_bytes()[..size]);
    }
}

fn xorshift(state: u64) -> u64 {
    let state = state ^ state << 13;
    let state = state ^ state >> 7;
    state ^ state << 17
}

#[cfg(test)]
mod tests {
    use consort_stage::{Code, encode_strings};

    use super::*;

    fn filling(datatype: DataType, dims: &[i64], data: FillingData) -> Filling {
        Filling { datatype, dims: dims.to_vec(), data }
    }

    fn made(filling: &Filling, rows: Option<usize>, folder: &Path) -> Result<Tensor> {
        fill(&"x".into(), filling, rows, folder)
    }

    #[test]
    fn every_type_can_be_zero_and_anything() {
        let nowhere = Path::new("warmup");
        for datatype in DataType::ALL {
            for data in [FillingData::Zero, FillingData::Random] {
                let tensor = made(&filling(datatype, &[2, 3], data), Some(4), nowhere).unwrap();
                assert_eq!(tensor.shape, [4, 2, 3], "{datatype}");
                tensor.check().unwrap();
            }
        }
    }

    #[test]
    fn random_numbers_differ_and_are_numbers() {
        let of = |datatype| {
            let filling = filling(datatype, &[64], FillingData::Random);
            made(&filling, None, Path::new("warmup")).unwrap()
        };
        let floats = of(DataType::Fp32);
        let floats = floats.to_slice::<f32>().unwrap();
        assert!(floats.iter().all(|number| (0.5..1.0).contains(number)), "{floats:?}");
        assert!(floats.windows(2).all(|pair| pair[0].to_bits() != pair[1].to_bits()));
        let doubles = of(DataType::Fp64);
        assert!(doubles.to_slice::<f64>().unwrap().iter().all(|one| (0.5..1.0).contains(one)));
        let whole = of(DataType::Int64);
        let whole = whole.to_slice::<i64>().unwrap();
        assert!(whole.contains(&0) && whole.contains(&1), "{whole:?}");
        assert!(whole.iter().all(|number| (0..=1).contains(number)));
    }

    #[test]
    fn a_file_gives_the_elements_of_each_row() {
        let folder = tempfile::tempdir().unwrap();
        let warmup = folder.path().join("warmup");
        fs::create_dir(&warmup).unwrap();
        fs::write(warmup.join("numbers"), [1, 0, 0, 0, 2, 0, 0, 0, 9]).unwrap();
        fs::write(warmup.join("texts"), encode_strings(&["a", "bc"])).unwrap();
        let file = |name: &str| FillingData::File(name.into());

        let numbers = filling(DataType::Int32, &[2], file("numbers"));
        let tensor = made(&numbers, Some(2), &warmup).unwrap();
        assert_eq!(&*tensor.to_slice::<i32>().unwrap(), [1, 2, 1, 2]);
        let texts = filling(DataType::Bytes, &[2], file("texts"));
        let tensor = made(&texts, None, &warmup).unwrap();
        assert_eq!(tensor.to_strings().unwrap(), [b"a".as_slice(), b"bc"]);

        let refused = |filling: &Filling| made(filling, None, &warmup).unwrap_err();
        let short = refused(&filling(DataType::Int32, &[3], file("numbers")));
        assert_eq!(
            short.message(),
            "input 'x': warmup setting expects 12 bytes, but the data provided from numbers only \
             has 9 bytes"
        );
        let few = refused(&filling(DataType::Bytes, &[3], file("texts")));
        assert!(few.message().contains("expecting 3"), "{few}");
        let missing = refused(&filling(DataType::Int32, &[1], file("no")));
        assert_eq!(missing.code(), Code::NotFound);
        assert!(
            missing.message().starts_with("input 'x': `warmup/no` cannot be read"),
            "{missing}"
        );
        for outside in ["../1/model.onnx", "/etc/passwd"] {
            let outside = refused(&filling(DataType::Int32, &[1], file(outside)));
            assert!(outside.message().contains("is not inside"), "{outside}");
        }
    }

    #[test]
    fn more_elements_than_memory_are_an_error() {
        for dims in [[1 << 62, 2], [1 << 62, 8]] {
            let huge = filling(DataType::Int8, &dims, FillingData::Zero);
            assert!(made(&huge, None, Path::new("warmup")).is_err());
        }
    }
}
