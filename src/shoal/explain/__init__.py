"""Logs judged: signatures of NCCL, Gloo, torch, CUDA, Ray and vLLM; the first cause before its consequences."""
