"""Fetches adapters from URLs and buckets, with limits on time and bytes."""
