-- Marks a partition as lost, if it still stands where its rows were found missing.
-- KEYS: the watermark. ARGV: event, why.
if (redis.call('HGET', KEYS[1], 'n') or '0') == ARGV[1] then
  redis.call('HSET', KEYS[1], 'lost', ARGV[2])
end
return {'ok'}
