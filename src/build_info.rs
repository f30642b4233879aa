//! stub
/// x
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuildInfo {
    name: &'static str,
}
macro_rules! o { ($($n:ident)*) => { #[allow(missing_docs)] impl BuildInfo { $(pub const fn $n(&self) -> Option<&'static str> { None })* } } }
o! { commit describe commit_date build_date rustc target profile }
#[allow(missing_docs)]
impl BuildInfo {
    pub const fn __new(name: &'static str) -> Self {
        Self { name }
    }
    pub const fn name(&self) -> &'static str {
        self.name
    }
    pub const fn version(&self) -> &'static str {
        "0"
    }
    pub const fn dirty(&self) -> Option<bool> {
        None
    }
}
/// x
#[macro_export]
macro_rules! build_info {
    () => {
        $crate::BuildInfo::__new(match option_env!("CARGO_BIN_NAME") {
            Some(n) => n,
            None => env!("CARGO_PKG_NAME"),
        })
    };
}
#[cfg(feature = "_core")]
impl serde::Serialize for BuildInfo {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.name)
    }
}
