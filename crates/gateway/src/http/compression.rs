//! Compressed bodies: which encodings the headers name, and the two ways through them.

use std::io::{Read, Write};

use axum::http::HeaderMap;
use axum::http::header::{ACCEPT_ENCODING, CONTENT_ENCODING};
use bytes::Bytes;
use consort_stage::{Error, Result};
use flate2::Compression;
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use flate2::write::{GzEncoder, ZlibEncoder};

use super::body::too_large;
use super::error::Failure;

/// How a body is encoded, the better liked the later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Encoding {
    /// Not compressed.
    Identity,
    /// The zlib format, which HTTP calls `deflate`.
    Deflate,
    /// The gzip format.
    Gzip,
}

impl Encoding {
    /// The name in headers.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Self::Identity, Self::Gzip, Self::Deflate]
            .into_iter()
            .find(|encoding| encoding.name().eq_ignore_ascii_case(name))
    }
}

/// The encoding of the request's body.
pub(super) fn of_request(headers: &HeaderMap) -> Result<Encoding, Failure> {
    let Some(value) = headers.get(CONTENT_ENCODING) else {
        return Ok(Encoding::Identity);
    };
    let name = value.to_str().unwrap_or_default().trim();
    if name.is_empty() {
        return Ok(Encoding::Identity);
    }
    Encoding::from_name(name).ok_or_else(|| {
        Failure::from(Error::unsupported("Unsupported compression type"))
            .with_header(ACCEPT_ENCODING, "gzip, deflate")
    })
}

/// The encoding that the caller likes best of those it names, by `q` and then gzip first.
///
/// A caller that names none gets plain bytes.
pub(super) fn for_response(headers: &HeaderMap) -> Encoding {
    let lists = headers.get_all(ACCEPT_ENCODING).iter();
    lists
        .filter_map(|list| list.to_str().ok())
        .flat_map(|list| list.split(',').filter_map(preference))
        .filter(|(_, quality)| *quality > 0.0)
        .max_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0)))
        .map_or(Encoding::Identity, |(encoding, _)| encoding)
}

fn preference(item: &str) -> Option<(Encoding, f32)> {
    let (name, parameters) = item.split_once(';').unwrap_or((item, ""));
    let encoding = Encoding::from_name(name.trim())?;
    let quality = parameters.trim().strip_prefix("q=");
    let quality = quality.map_or(Some(1.0), |text| text.trim().parse().ok())?;
    Some((encoding, quality))
}

/// The bytes behind `body`, or an error once they prove to be more than `limit`.
pub(super) fn decompress(body: &Bytes, encoding: Encoding, limit: usize) -> Result<Bytes> {
    let mut data = Vec::new();
    // One byte more than allowed tells too much from just enough.
    let most = limit as u64 + 1;
    match encoding {
        Encoding::Identity => return Ok(body.clone()),
        Encoding::Gzip => MultiGzDecoder::new(&body[..]).take(most).read_to_end(&mut data),
        Encoding::Deflate => ZlibDecoder::new(&body[..]).take(most).read_to_end(&mut data),
    }
    .map_err(|cause| {
        let name = encoding.name();
        Error::invalid(format!("the request body is not valid {name} data")).with_source(cause)
    })?;
    if data.len() > limit {
        return Err(too_large(data.len(), limit));
    }
    Ok(data.into())
}

/// The compressed form of `data`.
pub(super) fn compress(data: Vec<u8>, encoding: Encoding) -> Result<Vec<u8>> {
    // Tensors compress little, and the caller waits: the fastest level costs a third of the default.
    let level = Compression::fast();
    match encoding {
        Encoding::Identity => return Ok(data),
        Encoding::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), level);
            encoder.write_all(&data).and_then(|()| encoder.finish())
        }
        Encoding::Deflate => {
            let mut encoder = ZlibEncoder::new(Vec::new(), level);
            encoder.write_all(&data).and_then(|()| encoder.finish())
        }
    }
    .map_err(|cause| Error::internal("the response could not be compressed").with_source(cause))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(accept: &'static str) -> Encoding {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, accept.parse().unwrap());
        for_response(&headers)
    }

    #[test]
    fn the_best_liked_encoding_is_chosen() {
        assert_eq!(chosen("gzip, deflate"), Encoding::Gzip);
        assert_eq!(chosen("deflate, gzip"), Encoding::Gzip);
        assert_eq!(chosen("gzip;q=0.5, deflate;q=0.8"), Encoding::Deflate);
        assert_eq!(chosen("identity;q=0.9, gzip;q=0.5"), Encoding::Identity);
        assert_eq!(chosen("deflate"), Encoding::Deflate);
        assert_eq!(chosen("gzip;q=0"), Encoding::Identity);
        assert_eq!(chosen("br, *"), Encoding::Identity);
        assert_eq!(chosen("gzip;q=oops"), Encoding::Identity);
        assert_eq!(for_response(&HeaderMap::new()), Encoding::Identity);
    }

    #[test]
    fn a_small_body_that_unpacks_to_much_is_refused_at_the_limit() {
        for encoding in [Encoding::Gzip, Encoding::Deflate] {
            let packed = Bytes::from(compress(vec![0; 1 << 20], encoding).unwrap());
            let error = decompress(&packed, encoding, 1000).unwrap_err();
            assert!(error.message().contains("1001 bytes exceeds the maximum"));
            assert_eq!(decompress(&packed, encoding, 1 << 20).unwrap().len(), 1 << 20);
        }
    }
}
