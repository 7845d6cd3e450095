//! t
#[test]
fn it() { println!("hello"); }
