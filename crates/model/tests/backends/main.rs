//! Both backends over real graphs: the tests' small ones and the shipped language model.

mod generating;
mod loaded;
mod onnxruntime;
mod onnxruntime_llm;
mod reference;
