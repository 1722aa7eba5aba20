//! Sockets that whoever started the process had opened, as `sd_listen_fds(3)` says: they outlive the process, so that
//! nobody who connects while it is restarted is refused.
//!
//! They come as descriptors from 3 on, with names: `traffic` and `admin`. One that is not handed over is opened here, at
//! its configured address; one that is must listen at that address, so that the configuration tells the truth about who
//! can reach what.

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpListener},
    process,
};

use listenfd::ListenFd;
use rustix::net::sockopt::socket_acceptconn;

use super::Environment;

/// The sockets of the two listeners, if they were handed over.
#[derive(Debug, Default)]
pub struct Inherited {
    pub traffic: Option<TcpListener>,
    pub admin: Option<TcpListener>,
}

/// What a socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Traffic,
    Admin,
}

impl Role {
    const fn name(self) -> &'static str {
        match self {
            Self::Traffic => "traffic",
            Self::Admin => "admin",
        }
    }
}

/// Why what was handed over cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InheritError {
    #[error("{0} holds no number that is good for it; see sd_listen_fds(3)")]
    Malformed(&'static str),
    #[error(
        "{sockets} sockets were handed over, with {names} names: each needs one, `traffic` or `admin` (FileDescriptorName= in a socket unit, or the variable LISTEN_FDNAMES)"
    )]
    Unnamed { sockets: usize, names: usize },
    #[error(
        "a socket was handed over that is named {0:?}: there are `traffic` and `admin` (FileDescriptorName= in a socket unit, or the variable LISTEN_FDNAMES)"
    )]
    Unknown(String),
    #[error("two sockets were handed over that are named `{0}`, which listens on one")]
    Twice(&'static str),
    #[error("the socket that was handed over as `{name}` cannot be used: {source}")]
    Unusable {
        name: &'static str,
        source: io::Error,
    },
    #[error("the socket that was handed over as `{0}` does not listen")]
    Deaf(&'static str),
}

impl Inherited {
    /// Takes those of this process, once: they are then no longer in its environment.
    ///
    /// # Errors
    /// If there are others than the two listeners have use for.
    pub fn of(environment: &Environment) -> Result<Self, InheritError> {
        let roles = roles(
            environment.text("LISTEN_PID").as_deref(),
            environment.text("LISTEN_FDS").as_deref(),
            environment.text("LISTEN_FDNAMES").as_deref(),
            process::id(),
        )?;
        let mut inherited = Self::default();
        if roles.is_empty() {
            return Ok(inherited);
        }
        // Not to be inherited any further, and of the right kind: it sees to both.
        let mut descriptors = ListenFd::from_env();
        for (place, role) in roles.into_iter().enumerate() {
            let name = role.name();
            let unusable = |source| InheritError::Unusable { name, source };
            let taken = descriptors.take_tcp_listener(place).map_err(unusable)?;
            let listener = taken.ok_or(InheritError::Malformed("LISTEN_FDS"))?;
            if !socket_acceptconn(&listener).map_err(|error| unusable(error.into()))? {
                return Err(InheritError::Deaf(name));
            }
            match role {
                Role::Traffic => inherited.traffic = Some(listener),
                Role::Admin => inherited.admin = Some(listener),
            }
        }
        Ok(inherited)
    }
}

/// What each of the sockets is for, in their order. None if there are none, or if they are another process's: `own` is
/// the id of this one.
fn roles(
    pid: Option<&str>,
    sockets: Option<&str>,
    names: Option<&str>,
    own: u32,
) -> Result<Vec<Role>, InheritError> {
    let (Some(pid), Some(sockets)) = (pid, sockets) else {
        return Ok(Vec::new());
    };
    let pid: u32 = pid
        .parse()
        .map_err(|_| InheritError::Malformed("LISTEN_PID"))?;
    if pid != own {
        return Ok(Vec::new());
    }
    let sockets: usize = sockets
        .parse()
        .map_err(|_| InheritError::Malformed("LISTEN_FDS"))?;
    // Without any, there is still one empty piece.
    let names: Vec<_> = names
        .filter(|names| !names.is_empty())
        .map(|names| names.split(':').collect())
        .unwrap_or_default();
    if names.len() != sockets {
        let names = names.len();
        return Err(InheritError::Unnamed { sockets, names });
    }
    let mut roles = Vec::new();
    for name in names {
        let role = match name {
            "traffic" => Role::Traffic,
            "admin" => Role::Admin,
            _ => return Err(InheritError::Unknown(name.chars().take(64).collect())),
        };
        if roles.contains(&role) {
            return Err(InheritError::Twice(role.name()));
        }
        roles.push(role);
    }
    Ok(roles)
}

/// Whether a socket is where the configuration says. A configured port 0 is any port; an address is only itself: a socket
/// that all the world can reach is not what `127.0.0.1` asks for, nor one of IPv6 what `0.0.0.0` does.
pub fn agrees(configured: SocketAddr, socket: SocketAddr) -> bool {
    let canonical = |ip: IpAddr| ip.to_canonical();
    canonical(configured.ip()) == canonical(socket.ip())
        && (configured.port() == 0 || configured.port() == socket.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(
        pid: Option<&str>,
        sockets: Option<&str>,
        names: Option<&str>,
    ) -> Result<Vec<&'static str>, String> {
        let roles = roles(pid, sockets, names, 7).map_err(|error| error.to_string())?;
        Ok(roles.into_iter().map(Role::name).collect())
    }

    #[test]
    fn sockets_are_known_by_their_names_and_in_their_order() {
        for (sockets, names, expected) in [
            ("1", "traffic", &["traffic"][..]),
            ("1", "admin", &["admin"]),
            ("2", "traffic:admin", &["traffic", "admin"]),
            ("2", "admin:traffic", &["admin", "traffic"]),
            ("0", "", &[]),
        ] {
            let roles = told(Some("7"), Some(sockets), Some(names));
            assert_eq!(roles.unwrap(), expected, "{sockets} {names}");
        }
    }

    #[test]
    fn without_variables_or_for_another_process_there_are_none() {
        for (pid, sockets) in [
            (None, None),
            (None, Some("2")),
            (Some("7"), None),
            (Some("7"), Some("0")),
            (Some("8"), Some("2")),
            (Some("8"), Some("x")),
        ] {
            assert_eq!(told(pid, sockets, None).unwrap(), [""; 0]);
        }
    }

    #[test]
    fn what_is_not_clear_is_an_error_that_says_what_to_do() {
        for (pid, sockets, names, expected) in [
            ("x", "1", Some("traffic"), "LISTEN_PID holds no number"),
            ("7", "x", Some("traffic"), "LISTEN_FDS holds no number"),
            ("7", "-1", Some("traffic"), "LISTEN_FDS holds no number"),
            ("7", "", Some("traffic"), "LISTEN_FDS holds no number"),
            ("7", "1", None, "1 sockets were handed over, with 0 names"),
            ("7", "2", Some("traffic"), "with 1 names: each needs one"),
            ("7", "1", Some("traffic:admin"), "with 2 names"),
            ("7", "4000000000", Some("traffic"), "with 1 names"),
            ("7", "1", Some("unknown"), "\"unknown\""),
            (
                "7",
                "1",
                Some("contacts-gateway.socket"),
                "FileDescriptorName=",
            ),
            ("7", "1", Some("Traffic"), "\"Traffic\""),
            ("7", "2", Some("traffic:"), "\"\""),
            ("7", "2", Some("traffic:traffic"), "named `traffic`"),
            ("7", "3", Some("traffic:admin:third"), "\"third\""),
            ("7", "3", Some("traffic:admin:admin"), "named `admin`"),
        ] {
            let error = told(Some(pid), Some(sockets), names).unwrap_err();
            assert!(
                error.contains(expected),
                "{pid} {sockets} {names:?}: {error}"
            );
        }
        let long = "x".repeat(100_000);
        let error = told(Some("7"), Some("1"), Some(&long)).unwrap_err();
        assert!(error.len() < 300);
    }

    #[test]
    fn a_socket_agrees_with_its_own_address_and_with_no_wider_one() {
        for (configured, socket, expected) in [
            ("127.0.0.1:8080", "127.0.0.1:8080", true),
            ("127.0.0.1:8080", "127.0.0.1:8081", false),
            ("127.0.0.1:0", "127.0.0.1:8080", true),
            ("127.0.0.1:8080", "0.0.0.0:8080", false),
            ("0.0.0.0:8080", "127.0.0.1:8080", false),
            ("0.0.0.0:8080", "0.0.0.0:8080", true),
            ("0.0.0.0:8080", "[::]:8080", false),
            ("[::]:8080", "[::]:8080", true),
            ("[::1]:8080", "127.0.0.1:8080", false),
            ("127.0.0.1:8080", "[::ffff:127.0.0.1]:8080", true),
            ("[fe80::1]:8080", "[fe80::1%2]:8080", true),
        ] {
            let (one, other) = (configured.parse().unwrap(), socket.parse().unwrap());
            assert_eq!(agrees(one, other), expected, "{configured} {socket}");
        }
    }
}
