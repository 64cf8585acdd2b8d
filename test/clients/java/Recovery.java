import com.rabbitmq.client.Address;
import com.rabbitmq.client.AddressResolver;
import com.rabbitmq.client.AMQP;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.ConnectionFactory;
import com.rabbitmq.client.Recoverable;
import com.rabbitmq.client.RecoveryListener;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;

/**
 * The Java client's recovery of connection and topology after the death of its node.
 *
 * <p>{@code java -cp 'lib/*' Recovery.java HOST:PORT...}: it connects to the first address, and to
 * the others when that is gone. It makes an exchange and bindings, a durable queue, a server-named
 * exclusive one and consumers of both, and publishes every line of its standard input with a
 * confirm to the exchange, which gives both queues a copy. What it prints: "connected PORT",
 * "recovered PORT", "durable LINE", "exclusive LINE", "confirmed LINE".
 */
class Recovery {
  private static final String EXCHANGE = "java.recovery";
  private static final String QUEUE = "java.recovery";
  private static final String KEY = "line.*";
  private static final long RETRY_MS = 100;
  private static final long CONFIRM_MS = 20_000;

  public static void main(String[] args) throws Exception {
    var factory = new ConnectionFactory();
    factory.setNetworkRecoveryInterval(RETRY_MS);
    List<Address> addresses = new ArrayList<>();
    for (String arg : args) {
      addresses.add(Address.parseAddress(arg));
    }
    Connection connection = factory.newConnection(resolver(addresses));
    Channel channel = connection.createChannel();
    channel.confirmSelect();
    declare(channel);
    ((Recoverable) connection).addRecoveryListener(listener(connection));
    print("connected " + connection.getPort());

    var in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    for (String line = in.readLine(); !"end".equals(line); line = in.readLine()) {
      publish(channel, line);
    }
    channel.exchangeDelete(EXCHANGE);
    channel.queueDelete(QUEUE);
    connection.close();
  }

  /** Keeps the order of the addresses, which the client would shuffle. */
  private static AddressResolver resolver(List<Address> addresses) {
    return new AddressResolver() {
      @Override
      public List<Address> getAddresses() {
        return addresses;
      }

      @Override
      public List<Address> maybeShuffle(List<Address> input) {
        return input;
      }
    };
  }

  private static void declare(Channel channel) throws Exception {
    channel.exchangeDeclare(EXCHANGE, "topic", true);
    channel.queueDeclare(QUEUE, true, false, false, Map.of("x-queue-type", "quorum"));
    channel.queueBind(QUEUE, EXCHANGE, KEY);
    consume(channel, QUEUE, "durable");
    // The server names it, and names it anew when it is recovered.
    String exclusive = channel.queueDeclare().getQueue();
    channel.queueBind(exclusive, EXCHANGE, KEY);
    consume(channel, exclusive, "exclusive");
  }

  private static void consume(Channel channel, String queue, String name) throws Exception {
    channel.basicConsume(
        queue,
        false,
        (tag, delivery) -> {
          print(name + " " + new String(delivery.getBody(), StandardCharsets.UTF_8));
          channel.basicAck(delivery.getEnvelope().getDeliveryTag(), false);
        },
        tag -> print("cancelled " + name));
  }

  /**
   * Publishes until it is confirmed. For a moment after the death of a node its exclusive queues are
   * still bound, and what is routed to them too is answered with a nack.
   */
  private static void publish(Channel channel, String line) throws Exception {
    var properties = new AMQP.BasicProperties.Builder().deliveryMode(2).build();
    do {
      channel.basicPublish(EXCHANGE, "line.in", true, properties, line.getBytes(StandardCharsets.UTF_8));
    } while (!channel.waitForConfirms(CONFIRM_MS));
    print("confirmed " + line);
  }

  private static RecoveryListener listener(Connection connection) {
    return new RecoveryListener() {
      @Override
      public void handleRecovery(Recoverable recoverable) {
        print("recovered " + connection.getPort());
      }

      @Override
      public void handleRecoveryStarted(Recoverable recoverable) {}
    };
  }

  private static synchronized void print(String line) {
    System.out.println(line);
  }
}
