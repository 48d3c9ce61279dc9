-- Tries what the other scripts do, on keys of its own, and removes them. KEYS: a hash, a sorted
-- set. Reply: the server's first error, or nothing.
local tries = {
  {'HSET', KEYS[1], 'f', '1'}, {'HINCRBY', KEYS[1], 'f', '1'}, {'HGET', KEYS[1], 'f'}, {'HMGET', KEYS[1], 'f'},
  {'HLEN', KEYS[1]}, {'HGETALL', KEYS[1]}, {'ZADD', KEYS[2], 0, 'm'}, {'ZCARD', KEYS[2]}, {'ZSCORE', KEYS[2], 'm'},
  {'ZRANGEBYLEX', KEYS[2], '-', '+', 'LIMIT', 0, 1}, {'ZREM', KEYS[2], 'm'}, {'HDEL', KEYS[1], 'f'},
  {'UNLINK', KEYS[1], KEYS[2]},
}
for _, command in ipairs(tries) do
  local r = redis.pcall(unpack(command))
  if type(r) == 'table' and r.err then
    return {command[1] .. ': ' .. r.err}
  end
end
return {}
