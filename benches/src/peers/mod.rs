//! What Stoa is measured beside, in the same run and on the same cores. Start reading at [`redis`], the servers and the connections
//! to them; [`reads`] and [`writes`] are what is asked of them; or at [`echo`], the limit
//! of the transport.

pub mod echo;
pub mod reads;
pub mod redis;
pub mod resp;
pub mod writes;
