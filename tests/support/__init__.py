"""What tests share: ports, real servers and fakes of the outside."""
