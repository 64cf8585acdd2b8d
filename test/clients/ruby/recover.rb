# Bunny's recovery: of a connection, a channel, a queue of its own, a binding
# and a consumer, on another node. What it reads it publishes.
#
#   ruby recover.rb HOST:PORT...
require 'bunny'

$stdout.sync = true
connection = Bunny.new(addresses: ARGV, hosts_shuffle_strategy: ->(all) { all }, log_level: :fatal,
                       network_recovery_interval: 0.2, recovery_attempts: 300)
connection.after_recovery_completed { puts "recovered #{connection.transport.port}" }
connection.start
channel = connection.create_channel
channel.confirm_select
exchange = channel.fanout('ruby.recover', durable: true)
queue = channel.queue('', exclusive: true).bind(exchange)
queue.subscribe { |_, _, body| puts "got #{body}" }
puts "connected #{connection.transport.port}"
while (line = $stdin.gets&.chomp) && line != 'end'
  exchange.publish(line)
  channel.wait_for_confirms
end
channel.exchange_delete('ruby.recover')
connection.close
