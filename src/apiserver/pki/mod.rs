//! The certificate authority of a cluster and the credentials that it issues.
//!
//! Used by the composition roots at start-up: the server's own certificate, the administrator's kubeconfig, the
//! credentials of the node and of the components; and to sign what is ordered; by nodes that join, to ask for that. Who may
//! have what is decided elsewhere.
//! Invariants: a directory of keys has mode 0700 and a file with a key mode 0600; a key and its certificate share one
//! file, which is replaced atomically, so that they always belong together; a certificate that a running cluster
//! trusts is reused until shortly before its end.

mod authority;
mod files;
mod kubeconfig;
mod leaf;
mod request;

pub(crate) use authority::subject_names;
pub use authority::{Credential, Pki, PkiError, Subject};
pub(crate) use files::read_private;
pub use files::write_private;
pub use kubeconfig::Kubeconfig;
pub use leaf::LeafError;
pub use request::{Asked, RequestError};
