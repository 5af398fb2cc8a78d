"""Fetches adapters from URLs and buckets, within bounds."""
