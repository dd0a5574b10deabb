#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| kmer_tests::fuzz::catalogs::catalogs(data));
