"""Split captions and answers into words: the Penn-Treebank tokenizer, and the VQA normalization of answers."""
