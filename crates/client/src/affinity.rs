//! Keeps each sequence on one replica, whichever gateway asks, as replicas come and go.

use std::net::SocketAddr;

use consort_stage::CorrelationId;

/// FNV-1a, whose result is the same in every process and build.
const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

/// How much a replica wants a sequence: the one that wants it most gets it.
///
/// When a replica goes, its sequences alone move; when one comes, it takes its share from each.
pub(crate) fn weight(id: &CorrelationId, replica: SocketAddr) -> u64 {
    let hash = match id {
        CorrelationId::Number(number) => mixed(OFFSET, b"number").wrapping_add(*number),
        CorrelationId::Text(text) => mixed(mixed(OFFSET, b"text"), text.as_bytes()),
    };
    settled(mixed(settled(hash), replica.to_string().as_bytes()))
}

fn mixed(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME))
}

/// Lets every bit depend on every other, so that like addresses are unlike here.
fn settled(hash: u64) -> u64 {
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replicas(count: u16) -> Vec<SocketAddr> {
        (0..count).map(|index| SocketAddr::from(([10, 0, 0, 1], 8000 + index))).collect()
    }

    fn chosen(id: u64, replicas: &[SocketAddr]) -> SocketAddr {
        let id = CorrelationId::Number(id);
        *replicas.iter().max_by_key(|replica| weight(&id, **replica)).unwrap()
    }

    #[test]
    fn sequences_spread_evenly() {
        let replicas = replicas(4);
        for replica in &replicas {
            let count = (1..=1000).filter(|id| chosen(*id, &replicas) == *replica).count();
            assert!((150..350).contains(&count), "{replica} has {count} of 1000");
        }
    }

    #[test]
    fn a_replica_that_goes_takes_only_its_own_sequences_along() {
        let all = replicas(4);
        for id in 1..=1000 {
            let (before, after) = (chosen(id, &all), chosen(id, &all[..3]));
            assert!(before == after || before == all[3], "sequence {id} moved for nothing");
        }
    }

    #[test]
    fn a_text_and_a_number_are_different_sequences() {
        let text = CorrelationId::Text("1".into());
        let replica = replicas(1)[0];
        assert_ne!(weight(&text, replica), weight(&CorrelationId::Number(1), replica));
    }
}
