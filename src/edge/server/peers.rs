//! How many connections each peer has: one that opens them by the thousand leaves room for the others.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
};

/// The peers with a connection, no more of them than there may be connections. Its lock is taken once when a connection
/// opens and once when it closes.
#[derive(Debug)]
pub(super) struct Peers {
    open: Mutex<HashMap<IpAddr, usize>>,
    max: usize,
}

impl Peers {
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            open: Mutex::default(),
            max,
        })
    }

    /// A place for one more connection of this peer, until it is dropped; `None` if it has as many as it may.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let peer = peer(address);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(peer).or_default();
        if *count >= self.max {
            return None;
        }
        *count += 1;
        Some(Place {
            peers: self.clone(),
            peer,
        })
    }
}

/// Whom an address belongs to: in IPv6 a whole /64, which is the least that anybody has.
fn peer(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = address.to_bits() & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from_bits(network))
        }
        address @ IpAddr::V4(_) => address,
    }
}

/// One connection's place.
#[derive(Debug)]
pub(super) struct Place {
    peers: Arc<Peers>,
    peer: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self
            .peers
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut count) = open.entry(self.peer) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn each_peer_has_its_own_places_and_gets_them_back() {
        let peers = Peers::new(2);
        let (one, other) = (address("192.0.2.1"), address("192.0.2.2"));
        let first = peers.admit(one);
        let _second = peers.admit(one).expect("a second place");
        assert!(peers.admit(one).is_none());
        let _others = peers.admit(other).expect("another's place");
        drop(first);
        let _third = peers.admit(one).expect("the place that was given back");
        assert!(peers.admit(one).is_none());
    }

    #[test]
    fn nothing_is_remembered_of_who_has_left() {
        let peers = Peers::new(2);
        drop((
            peers.admit(address("::1")),
            peers.admit(address("192.0.2.1")),
        ));
        assert!(peers.open.lock().expect("no panic").is_empty());
    }

    #[test]
    fn a_network_of_ipv6_is_one_peer_and_a_mapped_address_is_the_one_in_it() {
        for (one, other, same) in [
            ("2001:db8::1", "2001:db8::ffff:0:0:2", true),
            ("2001:db8::1", "2001:db8:0:1::1", false),
            ("::ffff:192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
        ] {
            assert_eq!(
                peer(address(one)) == peer(address(other)),
                same,
                "{one} {other}"
            );
        }
    }
}
