"""Fields of SGLang's /generate that aren't supported, or that have no effect. Pure."""

from api.requests.unsupported_fields import NeutralValues

UNSUPPORTED: NeutralValues = {
    "audio_data": ([],),
    "background": (False,),
    "bootstrap_host": (),
    "bootstrap_port": (),
    "bootstrap_room": (),
    "cache_salt": ("",),
    "custom_logit_processor": (),
    "image_data": ([],),
    "input_embeds": (),
    "max_thinking_tokens": (),
    "mm_content_hashes": (),
    "mm_hashes": (),
    "multi_item_delimiter_indices": (),
    "positional_embed_overrides": (),
    "require_reasoning": (False,),
    "return_bytes": (False,),
    "return_entropy": (False,),
    "return_flat_raw_output_top_logprobs": (False,),
    "return_flat_raw_top_logprobs": (False,),
    "return_flat_raw_top_logprobs_b64": (False,),
    "return_hidden_states": (False,),
    "return_indexer_topk": (False,),
    "return_routed_experts": (False,),
    "return_sampling_mask": (False,),
    "routed_experts_start_len": (0,),
    "session_params": (),
    "use_audio_in_video": (False,),
    "video_data": ([],),
}
"""Fields of the body that aren't supported, with their neutral values."""
UNSUPPORTED_SAMPLING: NeutralValues = {
    "beam_width": (1,),
    "custom_params": ({},),
    "spaces_between_special_tokens": (True, False),  # no spaces are added; the default is true
    "stop_regex": ([], ""),
    "structural_tag": ("",),
    "watermark": (),
}
"""Fields of `sampling_params` that aren't supported, with their neutral values."""
IGNORED = (
    "conversation_id",
    "custom_labels",
    "data_parallel_rank",
    "external_trace_header",
    "extra_key",
    "kv_router_hint",
    "log_metrics",
    "lora_id",
    "modalities",
    "no_logs",
    "priority",
    "received_time",
    "routed_dp_rank",
    "routing_key",
    "session_id",
    "video_config",
)
"""Fields that are accepted and have no effect on the answer.

`extra_key` separates the cached prompts of several adapters, which are always separate here.
"""
