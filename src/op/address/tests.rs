//! Addresses survive the conversion to `sockaddr` and back.

use super::*;

fn round_trip(address: &Address) -> Address {
    let name = address.to_name().expect("short enough");
    Address::from_name(name.bytes()).expect("an address")
}

#[test]
fn inet_addresses_round_trip() {
    for text in ["127.0.0.1:80", "255.1.2.3:65535", "[::1]:0", "[fe80::1%7]:443"] {
        let address: SocketAddr = text.parse().expect("an address");
        assert!(matches!(round_trip(&address.into()), Address::Inet(same) if same == address));
    }
    let all = SocketAddrV6::new(Ipv6Addr::LOCALHOST, 1, 0x12345, 9);
    let Address::Inet(SocketAddr::V6(same)) = round_trip(&SocketAddr::V6(all).into()) else {
        panic!("another family");
    };
    assert_eq!(same, all);
}

#[test]
fn unix_addresses_round_trip() {
    let path = net::SocketAddr::from_pathname("/tmp/a socket").expect("a path");
    let Address::Unix(same) = round_trip(&path.into()) else { panic!("another family") };
    assert_eq!(same.as_pathname(), Some("/tmp/a socket".as_ref()));

    let name = net::SocketAddr::from_abstract_name(b"a\0name").expect("a name");
    let Address::Unix(same) = round_trip(&name.into()) else { panic!("another family") };
    assert_eq!(same.as_abstract_name(), Some(&b"a\0name"[..]));

    let (unnamed, _) = net::UnixStream::pair().expect("a pair");
    let unnamed = unnamed.local_addr().expect("an address");
    let Address::Unix(same) = round_trip(&unnamed.into()) else { panic!("another family") };
    assert!(same.is_unnamed());
}

#[test]
fn other_families_keep_their_bytes() {
    let vsock = [40, 0, 1, 2, 3, 4, 5, 6];
    let Address::Other(same) = round_trip(&Address::Other(vsock.to_vec())) else {
        panic!("another family");
    };
    assert_eq!(same, vsock);
}

#[test]
fn malformed_addresses_are_refused_or_kept_raw() {
    assert!(Address::from_name(&[]).is_none());
    assert!(Address::Other(vec![0; 200]).to_name().is_err());
    // A truncated address belongs to no family, and keeps its bytes.
    let short = [(libc::AF_INET as u16).to_ne_bytes()[0], 0, 1];
    assert!(matches!(Address::from_name(&short), Some(Address::Other(_))));
}
